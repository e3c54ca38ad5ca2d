package pooled

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestWhatTLSHasInHandIsSeen: on a connection with TLS, messages that were read and not passed on, and a part of one, show,
// and a connection whose reader waits with nothing in hand is at rest.
func TestWhatTLSHasInHandIsSeen(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	pgtest.Must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	pgtest.Must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.Must(t, err)
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	pgtest.Must(t, err)
	defer near.Close()
	far, err := l.Accept()
	pgtest.Must(t, err)
	defer far.Close()
	// What the server sends in clear before TLS counts for nothing.
	pgtest.Must(t, second(far.Write([]byte("S"))))
	below := tapped(near)
	pgtest.Must(t, second(io.ReadFull(below, make([]byte, 1))))
	server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	client := tls.Client(below, &tls.Config{InsecureSkipVerify: true}) // the test is about something else
	pgtest.Must(t, client.Handshake())
	pgtest.Must(t, <-shaken)

	var s sock
	s.open(client, &buffers{}, smallBuffer)
	if s.tap == nil || s.under == nil || s.raw != nil {
		t.Fatal("the connection is not taken for one with TLS")
	}
	got := make(chan int)
	goOn := make(chan int)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.serve(func() (int, bool) {
			n := len(s.unread())
			s.r, s.w = 0, 0
			got <- n
			<-goOn
			return 0, true
		})
	}()
	rests := func() error {
		if s.busy() || !s.quiet() {
			return errors.New("it is busy")
		}
		return nil
	}
	pgtest.Eventually(t, "the reader waits", rests)
	pgtest.Must(t, second(server.Write(make([]byte, 10000)))) // more than the buffer takes at once
	for left := 10000; left > 0; {
		left -= <-got
		if !s.busy() {
			t.Errorf("%d bytes are left, and nothing shows", left)
		}
		goOn <- 0
	}
	pgtest.Eventually(t, "all was read", rests)
	// A part of a record.
	pgtest.Must(t, second(far.Write([]byte{23, 3, 3, 0, 100, 1, 2, 3})))
	pgtest.Eventually(t, "a part of a record shows", func() error {
		if !s.busy() || !s.quiet() {
			return errors.New("it rests")
		}
		return nil
	})
	far.Close()
	<-ended
}

func second(_ int, err error) error { return err }
