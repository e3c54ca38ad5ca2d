#!/usr/bin/env bash
# Runs each fuzz target for a while, one after the other, and adds up how long it has run:
#
#   fuzz.sh DURATION [TARGET...]     for instance: fuzz.sh 1h FuzzAccept FuzzLogin
#
# It writes docs/bench/fuzz.tsv and, from that, docs/bench/fuzz.md. Of what the fuzzer finds interesting, the newest KEEP (6)
# inputs of a target are kept in testdata/fuzz, where every go test runs them; an input that fails is put there by go test.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
record=docs/bench/fuzz.tsv
page=docs/bench/fuzz.md
keep=${KEEP:-6}
longest=4096 # bytes of an input that is kept
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# targets prints folder and name of each.
targets() {
	grep -rE '^func Fuzz' --include='*_test.go' internal |
		sed -nE 's/^(.*)\/[^/]*:func (Fuzz[A-Za-z0-9_]+).*/\1 \2/p' | sort
}

# elapsed is how many seconds the fuzzer says that it ran for: its last 1h2m3s.
elapsed() {
	sed -nE 's/^fuzz: elapsed: ([0-9hms]+),.*/\1/p' "$log" | tail -n 1 | awk '{
		n = 0
		while (match($0, /^[0-9]+[hms]/)) {
			unit = substr($0, RLENGTH, 1)
			n += substr($0, 1, RLENGTH - 1) * (unit == "h" ? 3600 : unit == "m" ? 60 : 1)
			$0 = substr($0, RLENGTH + 1)
		}
		print n
	}'
}

# add SECONDS EXECUTIONS to what is recorded of FOLDER TARGET.
add() {
	touch "$record"
	awk -v OFS='\t' -v folder="$1" -v target="$2" -v seconds="$3" -v runs="$4" -v day="$(date -u +%F)" -F '\t' '
		$1 == folder && $2 == target { $3 += seconds; $4 += runs; $5 = day; found = 1 }
		{ print }
		END { if (!found) print folder, target, seconds, runs, day }
	' "$record" | sort >"$record.new"
	mv "$record.new" "$record"
}

# collect keeps the newest of what the fuzzer has found interesting.
collect() {
	local folder=$1 target=$2 found kept
	found=$(go env GOCACHE)/fuzz/$(go list "./$folder")/$target
	kept=$folder/testdata/fuzz/$target
	[ -d "$found" ] || return 0
	mkdir -p "$kept"
	find "$found" -type f -size "-${longest}c" -printf '%T@ %p\n' | sort -rn | sed -n "1,${keep}p" | cut -d ' ' -f 2- |
		while read -r input; do cp "$input" "$kept/"; done
}

write_page() {
	{
		cat <<-'END'
			# How long the parsers were fuzzed

			What clients, servers, members and the store send, and files of users, rules and configuration, are read by parsers
			that have a fuzz target each. Without one are those of Go's library: tar archives of copies, and the JSON of requests to
			the REST API. `make fuzz` runs them, adds up the time in `fuzz.tsv` and writes this page again:

			```sh
			make fuzz FUZZTIME=1h                        # all targets, an hour each
			make fuzz FUZZTIME=8h ONLY="FuzzAccept"      # some of them
			```

			Of a target that is not in the table no run is on record. Each `go test` goes through the inputs that are kept in
			`testdata/fuzz`; one that fails is put there, so that the test fails until it is mended.

			| package | target | hours | executions | last |
			| --- | --- | ---: | ---: | --- |
		END
		awk -F '\t' '{ printf "| `%s` | `%s` | %.2f | %d | %s |\n", $1, $2, $3 / 3600, $4, $5 }' "$record"
	} >"$page"
}

main() {
	local duration=${1:-30s} wanted=("${@:2}") folder target failed=0
	while read -r folder target; do
		if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $target "* ]]; then
			continue
		fi
		echo "$target ($folder)"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" "./$folder" 2>&1 | tee "$log" || failed=1
		add "$folder" "$target" "$(elapsed)" "$(sed -nE 's/.*execs: ([0-9]+).*/\1/p' "$log" | tail -n 1)"
		collect "$folder" "$target"
	done < <(targets)
	write_page
	return "$failed"
}

main "$@"
