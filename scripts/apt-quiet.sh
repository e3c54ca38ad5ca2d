#!/usr/bin/env bash
# Installs Debian packages as root and leaves no trace of their services: nothing is started while they are configured
# (policy-rc.d), PostgreSQL's packages create no cluster (create_main_cluster = false), and every unit that their
# installation enabled is disabled again. What was running or enabled before stays as it was.
set -euo pipefail

policy=/usr/sbin/policy-rc.d
createcluster=/etc/postgresql-common/createcluster.conf
saved=$(mktemp -d)

# keep and restore make a change of a file temporary.
keep() {
	if [ -e "$1" ]; then
		cp -a "$1" "$saved/$2"
	fi
}

restore() {
	if [ -e "$saved/$2" ]; then
		cp -a "$saved/$2" "$1"
	else
		rm -f "$1"
	fi
}

deny_starts() {
	keep "$policy" policy
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
}

# enabled lists what starts at boot: the links of systemd and of System V's run levels.
enabled() {
	find /etc/systemd/system -path '*.wants/*' -type l 2>/dev/null || true
	find /etc/rc[S2345].d -name 'S*' -type l 2>/dev/null || true
}

# disable takes the path of one such link and disables its unit.
disable() {
	local unit
	unit=$(basename "$1")
	case $1 in
	/etc/systemd/system/*)
		if command -v systemctl >/dev/null; then
			systemctl disable "$unit" >/dev/null 2>&1 || true
		fi
		rm -f "$1"
		;;
	*)
		unit=${unit#S[0-9][0-9]}
		update-rc.d "$unit" disable >/dev/null 2>&1 || true
		;;
	esac
}

apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

install() {
	apt install --no-install-recommends -y "$@" >"$saved/log" 2>&1 || {
		tail -n 40 "$saved/log" >&2
		return 1
	}
}

# no_cluster keeps packages of servers from creating a cluster. The file belongs to postgresql-common, which must
# therefore be there first.
no_cluster() {
	case " $* " in
	*" postgresql"*) ;;
	*) return 0 ;;
	esac
	install postgresql-common
	keep "$createcluster" createcluster
	cluster_kept=yes
	sed -i '/^[[:space:]]*create_main_cluster/d' "$createcluster"
	echo 'create_main_cluster = false' >>"$createcluster"
}

# finish undoes the temporary changes, also after a failure.
finish() {
	local link
	restore "$policy" policy
	if [ -n "$cluster_kept" ]; then
		restore "$createcluster" createcluster
	fi
	enabled | sort | comm -13 "$saved/enabled" - | while read -r link; do
		disable "$link"
	done
	rm -rf "$saved"
}

cluster_kept=
enabled | sort >"$saved/enabled"
trap finish EXIT
trap 'exit 130' INT TERM HUP

deny_starts
apt update || echo "apt-get update failed; going on with the lists that are there" >&2
no_cluster "$@"
install "$@"
