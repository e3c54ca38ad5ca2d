//go:build !race

package socket

func filled([]byte) {}

func taken([]byte) {}
