// Package schema is the table of configuration keys: which there are, what each takes, its default, what a change of it
// needs, and what it is for; and the comparison of a document with that table.
//
// The table is the only source of all of these, for the reader, its faults and the reference. Values are judged here one
// by one; rules that need more than one key, and everything that needs the host, are the caller's.
package schema
