/*
 * Takes the stall from a DICOM program: preloaded, it switches Nagle's
 * algorithm off on every TCP socket and asks for quick acknowledgement, again
 * after every read, because the kernel falls back by itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#define MOST 65536
static volatile char tcp[MOST]; /* descriptors that are TCP sockets */

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static void quick(int fd) {
    int on = 1, saved = errno;
    if (fd >= 0 && fd < MOST && tcp[fd])
        setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
    errno = saved;
}

static void tune(int fd) {
    int on = 1, saved = errno, domain = 0, type = 0;
    socklen_t n = sizeof domain, m = sizeof type;
    if (fd >= 0 && fd < MOST
        && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0
        && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &m) == 0
        && (domain == AF_INET || domain == AF_INET6) && type == SOCK_STREAM) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        tcp[fd] = 1;
        quick(fd);
    }
    errno = saved;
}

int socket(int domain, int type, int protocol) {
    REAL(socket);
    int fd = real(domain, type, protocol);
    if (fd >= 0) tune(fd);
    return fd;
}

int accept(int fd, struct sockaddr *address, socklen_t *length) {
    REAL(accept);
    int got = real(fd, address, length);
    if (got >= 0) tune(got);
    return got;
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    REAL(accept4);
    int got = real(fd, address, length, flags);
    if (got >= 0) tune(got);
    return got;
}

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < MOST) tcp[fd] = 0;
    return real(fd);
}

ssize_t read(int fd, void *to, size_t n) {
    REAL(read);
    ssize_t got = real(fd, to, n);
    quick(fd);
    return got;
}

ssize_t recv(int fd, void *to, size_t n, int flags) {
    REAL(recv);
    ssize_t got = real(fd, to, n, flags);
    quick(fd);
    return got;
}

ssize_t recvfrom(int fd, void *to, size_t n, int flags, struct sockaddr *address, socklen_t *length) {
    REAL(recvfrom);
    ssize_t got = real(fd, to, n, flags, address, length);
    quick(fd);
    return got;
}

/* What read and recv are called where the compiler checks sizes. */
ssize_t __read_chk(int fd, void *to, size_t n, size_t room) { (void)room; return read(fd, to, n); }
ssize_t __recv_chk(int fd, void *to, size_t n, size_t room, int flags) { (void)room; return recv(fd, to, n, flags); }
