// Package tree is a configuration document as it was written: a tree of values, each of which remembers its place.
//
// It guarantees that a text of any size or shape is read in bounded memory, that what is wrong with it is told with line
// and column, and that scalars keep their text. It knows no key and no default; what a value means is for the caller to
// say. It reads no file.
package tree
