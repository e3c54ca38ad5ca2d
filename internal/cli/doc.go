// Package cli is the command line of Haven.
//
// Data go to standard output, talk and errors to standard error. The first line is the verdict; what is not known is
// shown as ? or unknown, never as zero; every error says what happened, what it means and what to do. Exit codes are
// stable (see the constants). Reads are linearizable reads of etcd, or what one member knows where etcd cannot be
// reached or the configuration is the URL of a REST API; the output says which, and as of when.
//
// It decides nothing about the cluster: switchovers and failovers are requests to its members.
package cli
