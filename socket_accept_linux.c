//go:build cgo && !core

// libzmq 4.3.4 aborts the process where accept4 fails with an error that its list lacks:
// then whoever connects at the wrong moment ends the process. So this stands in front of
// libc's accept4 and, for libzmq alone, translates such errors to ones that are in the
// list. It is weak, so that a program which does the same itself has its way, and so that
// two copies of this file can be linked. (Go's net package does not use libc.)

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef int accepting(int, struct sockaddr *, socklen_t *, int);

// expected is what libzmq takes for a connection that could not be accepted: now, since
// something has run out, or at all.
static int expected(int error) {
	switch (error) {
	case EMFILE: case ENOMEM: case ENOBUFS:
		return ENFILE;
	case EPERM: case ENETDOWN: case ENETUNREACH: case EHOSTDOWN: case EHOSTUNREACH:
	case ENONET: case ENOPROTOOPT: case EOPNOTSUPP: case ECONNRESET: case ETIMEDOUT:
		return ECONNABORTED;
	}
	return error;
}

// for_libzmq says that an address is in libzmq. It is asked after an error only, so it may
// take its time.
static int for_libzmq(void *address) {
	Dl_info here, zmq;
	void *known = dlsym(RTLD_DEFAULT, "zmq_ctx_new");
	if (!known)
		known = (void *)for_libzmq; // it is linked statically
	return dladdr(address, &here) && dladdr(known, &zmq) && here.dli_fbase == zmq.dli_fbase;
}

__attribute__((weak)) int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
	static _Atomic(accepting *) libc;
	accepting *next = atomic_load_explicit(&libc, memory_order_relaxed);
	if (!next) {
		next = (accepting *)dlsym(RTLD_NEXT, "accept4");
		atomic_store_explicit(&libc, next, memory_order_relaxed);
	}
	// A program that is linked statically has no other one.
	int accepted = next ? next(fd, address, size, flags) : (int)syscall(SYS_accept4, fd, address, size, flags);
	if (accepted >= 0)
		return accepted;
	int error = errno;
	if (for_libzmq(__builtin_return_address(0)))
		error = expected(error);
	errno = error;
	return accepted;
}
