// Package config reads the description of one node: haven.yml, patroni.yml, a directory of either, or PATRONI_*
// variables alone; and the dynamic configuration that the members share through the store.
//
// It guarantees that every fault of a file is reported at once, each with file, line and column; that a Node without
// errors is complete (every default filled in, every relative path made absolute, every secret read); that secrets
// appear in no fault and in nothing printed; and that one table (see Reference) is the only source of what keys there
// are, what they default to and what a change of them needs.
//
// It reads the files it is pointed at and, only in BusyPorts and FindBinDir, /proc and the places where servers are
// installed. Environment, host name, addresses and working directory come in as a Source. It leaves to the caller to
// look for a file (FindFile), to create directories, and to act on what Diff says.
//
// Formats: a file with a section haven is in Haven format and read strictly; one without is in Patroni format, where
// unknown keys are warnings. Names, meanings and defaults of Patroni's keys are those of Patroni 4.1.
package config
