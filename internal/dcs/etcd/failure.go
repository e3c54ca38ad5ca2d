package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/havenha/haven/internal/dcs"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	errStale     = errors.New("this etcd member is stale")
	errClosed    = errors.New("the connection to etcd has been closed")
	errUncertain = errors.New("an earlier try had no answer, and its outcome cannot be told from the keys")
	errCompacted = errors.New("the watched revision has been compacted")
)

// Unreachable is the error of a call that no endpoint answered in time. The state of the store is unknown.
type Unreachable struct {
	// Within is how long was tried.
	Within time.Duration
	// Reasons are the last failures, in the order of the endpoints.
	Reasons []EndpointError
}

// EndpointError is why one endpoint did not answer.
type EndpointError struct {
	Endpoint string
	Err      error
}

func (u *Unreachable) Error() string {
	var reasons []string
	for _, r := range u.Reasons {
		reasons = append(reasons, r.Endpoint+": "+plain(r.Err))
	}
	return fmt.Sprintf("no etcd endpoint answered within %s (%s)", u.Within.Round(10*time.Millisecond), strings.Join(reasons, "; "))
}

// Unwrap gives the errors of the endpoints.
func (u *Unreachable) Unwrap() []error {
	var errs []error
	for _, r := range u.Reasons {
		errs = append(errs, r.Err)
	}
	return errs
}

// note keeps the newest failure of each endpoint.
func (u *Unreachable) note(endpoint string, err error) {
	for i := range u.Reasons {
		if u.Reasons[i].Endpoint == endpoint {
			u.Reasons[i].Err = err
			return
		}
	}
	u.Reasons = append(u.Reasons, EndpointError{endpoint, err})
}

// plain is an error's text without gRPC's wrapping.
func plain(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		return "no answer in time"
	}
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	if _, after, ok := strings.Cut(text, "transport: Error while dialing: "); ok {
		text = strings.TrimSuffix(after, `"`)
	}
	return text
}

// translate turns an etcd error that has a meaning of its own into ours.
func translate(err error) error {
	e := rpctypes.Error(err)
	switch {
	case errors.Is(e, rpctypes.ErrLeaseNotFound):
		return dcs.ErrLeaseGone
	case errors.Is(e, rpctypes.ErrAuthFailed):
		return refusal{"etcd refuses the user name or password: check etcd.username and etcd.password", err}
	case errors.Is(e, rpctypes.ErrUserEmpty):
		return refusal{"etcd asks for a user name and password: set etcd.username and etcd.password", err}
	case errors.Is(e, rpctypes.ErrPermissionDenied):
		return refusal{"the etcd user may not use this cluster's keys: grant its role read and write on the prefix", err}
	case errors.Is(e, rpctypes.ErrNoSpace):
		return refusal{"etcd's database is full and takes no writes: compact and defragment it, then `etcdctl alarm disarm`", err}
	}
	return err
}

// refusal is an answer that no other endpoint would give differently.
type refusal struct {
	text string
	err  error
}

func (r refusal) Error() string { return r.text }
func (r refusal) Unwrap() error { return r.err }

// final tells whether a repetition of the call would be in vain. It would not be where an endpoint was closed: another has its place,
// or the client's own end is the call's.
func final(err error) bool {
	var r refusal
	switch {
	case errors.Is(err, dcs.ErrConflict), errors.Is(err, dcs.ErrLeaseGone), errors.Is(err, errUncertain),
		errors.As(err, &r):
		return true
	}
	switch code(err) {
	case codes.InvalidArgument, codes.Unimplemented:
		e := rpctypes.Error(err)
		return !errors.Is(e, rpctypes.ErrAuthOldRevision)
	}
	return false
}

// code is gRPC's code of an error, also of those that etcd's client has already translated.
func code(err error) codes.Code {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code()
	}
	return status.Code(err)
}

// unsent tells whether it is certain that a failed request never reached a server's log.
func unsent(err error) bool {
	if final(err) {
		return true
	}
	e := rpctypes.Error(err)
	if errors.Is(e, rpctypes.ErrInvalidAuthToken) || errors.Is(e, rpctypes.ErrAuthOldRevision) ||
		errors.Is(e, rpctypes.ErrTooManyRequests) {
		return true
	}
	text := err.Error()
	return strings.Contains(text, "Error while dialing") || strings.Contains(text, "authentication handshake failed")
}
