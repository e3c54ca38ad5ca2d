//go:build race

package socket

// filled and taken tell the race detector what the kernel has done with a buffer, which it does not see by itself.
func filled(b []byte) {
	for i := range b {
		b[i] |= 0
	}
}

func taken(b []byte) {
	var sum byte
	for _, c := range b {
		sum ^= c
	}
	_ = sum
}
