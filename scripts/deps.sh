#!/usr/bin/env bash
# Installs what a target of the Makefile needs and the machine lacks:
#
#   deps.sh demo    PostgreSQL's server programs
#   deps.sh test    besides these a C compiler (race detector) and the peers of the tests: Patroni, etcd,
#                   HAProxy, PgBouncer; strace
#   deps.sh lint    shellcheck, and golangci-lint into .cache/bin
#
# When nothing is missing it does nothing, in a fraction of a second. Debian packages are installed as root or through
# a sudo that asks for no password; otherwise one line tells what to install, and the exit status is 1. No database
# cluster is created, and no service runs or is enabled afterwards that was not before.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
golangci_version=v2.15.0

missing=()

# need PACKAGE CONDITION...: PACKAGE is missing unless CONDITION, a command, succeeds.
need() {
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}

has_server() {
	compgen -G '/usr/lib/postgresql/*/bin/postgres' || compgen -G '/usr/pgsql-*/bin/postgres' || command -v postgres
}

has_contrib() {
	compgen -G '/usr/share/postgresql/*/extension/pg_stat_statements.control' ||
		compgen -G '/usr/pgsql-*/share/extension/pg_stat_statements.control'
}

has_libc_headers() { [ -e /usr/include/stdlib.h ]; }

demo_needs() {
	need postgresql has_server
}

test_needs() {
	demo_needs
	need postgresql-contrib has_contrib
	need gcc command -v gcc
	need libc6-dev has_libc_headers
	need procps command -v ps
	need patroni command -v patronictl
	need etcd-server command -v etcd
	need etcd-client command -v etcdctl
	need haproxy command -v haproxy
	need pgbouncer command -v pgbouncer
	need strace command -v strace
}

lint_needs() {
	need shellcheck command -v shellcheck
}

# privileged runs a command as root. -n: sudo fails instead of asking.
privileged() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo -n -- "$@"
	fi
}

may_install() {
	command -v apt-get >/dev/null || return 1
	[ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null
}

golangci() {
	local bin=$root/.cache/bin/golangci-lint
	if [ -x "$bin" ] && "$bin" version 2>/dev/null | grep -qF "${golangci_version#v}"; then
		return
	fi
	echo "building golangci-lint $golangci_version into .cache/bin; this takes a minute or two"
	mkdir -p "$root/.cache/bin"
	if ! GOBIN=$root/.cache/bin go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$golangci_version"; then
		echo "golangci-lint $golangci_version could not be built: see the lines above; the linters cannot run without it" >&2
		return 1
	fi
}

main() {
	local what=${1:-}
	case $what in
	demo | test | lint) "${what}_needs" ;;
	*)
		echo "usage: deps.sh demo|test|lint" >&2
		return 2
		;;
	esac
	if [ ${#missing[@]} -gt 0 ]; then
		if ! may_install; then
			echo "missing: install these packages (Debian's names) and try again: ${missing[*]}" >&2
			return 1
		fi
		echo "installing: ${missing[*]}"
		privileged bash "$root/scripts/apt-quiet.sh" "${missing[@]}"
	fi
	if [ "$what" = lint ]; then
		golangci
	fi
}

main "$@"
