#!/usr/bin/env bash
# Fetches Patroni 4 from the Debian release after this machine's into .cache/patroni4, beside the installed one, for the
# tests of mixed clusters. Nothing is installed: the package is unpacked, and runs on the Python and the libraries that the
# installed package patroni has brought. Where it cannot be had, one line says so, and the exit status is 1.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache/patroni4
suite=trixie

# mirror prints the address from which this machine's own packages come.
mirror() {
	cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
		sed -nE 's/^URIs: *([^ ]+debian)\/? *$/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+debian)\/? .*/\2/p' | head -n 1
}

# private runs an apt tool with lists and a cache of its own.
private() {
	APT_CONFIG=$cache/apt.conf "$@"
}

fetch() {
	local from
	from=$(mirror)
	[ -n "$from" ] || return 1
	rm -rf "$cache"
	mkdir -p "$cache/lists/partial" "$cache/archives/partial"
	cat >"$cache/apt.conf" <<-END
		Dir::Etc::sourcelist "$cache/sources.list";
		Dir::Etc::sourceparts "-";
		Dir::State::lists "$cache/lists";
		Dir::Cache "$cache";
		APT::Sandbox::User "$(id -un)";
	END
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $from $suite main" >"$cache/sources.list"
	private apt-get -qq update || return 1
	(cd "$cache" && private apt-get -qq download patroni) || return 1
	dpkg -x "$cache"/patroni_4*.deb "$cache/unpacked" || return 1
	rm -rf "$cache/lists" "$cache/archives"
	touch "$cache/complete"
}

if [ ! -e "$cache/complete" ] && ! fetch >&2; then
	echo "patroni4: Debian's $suite cannot be reached from here: mixed clusters with Patroni 4 are not tested" >&2
	exit 1
fi
echo "$cache/unpacked/usr/lib/python3/dist-packages"
