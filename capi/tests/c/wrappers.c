// A library that puts functions of its own before the C library's, as tracers and profilers do, and allocates in each of
// them: preloaded beside the allocator, before or behind it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

// Whether the thread is in the wrapper that this stands in: each allocates in all the others.
#define GUARD static __thread int inside __attribute__((tls_model("initial-exec")))

// What a wrapper of the wild does: a record, a buffer, a large buffer. Only a question that comes before the allocator
// knows the process may find no memory.
static void allocate(int *inside, int may_fail) {
    static const size_t sizes[] = {64, 100 << 10, 4 << 20};
    if (*inside)
        return;
    *inside = 1;
    char *blocks[3];
    for (int i = 0; i < 3; i++) {
        blocks[i] = malloc(sizes[i]);
        if (blocks[i])
            blocks[i][0] = blocks[i][sizes[i] - 1] = 1;
        else if (!may_fail)
            _exit(42);
    }
    for (int i = 0; i < 3; i++)
        free(blocks[i]);
    *inside = 0;
}

// The next function of that name.
static void *next(int *inside, const char *name) {
    int before = *inside;
    *inside = 1;
    void *found = dlsym(RTLD_NEXT, name);
    *inside = before;
    if (!found)
        _exit(43);
    return found;
}

#define WRAP_AS(guard, may_fail, type, name, parameters, arguments) \
    type name parameters {                                          \
        guard;                                                      \
        static type(*real) parameters;                              \
        allocate(&inside, may_fail);                                \
        if (!real)                                                  \
            real = next(&inside, #name);                            \
        return real arguments;                                      \
    }
#define WRAP(type, name, parameters, arguments) WRAP_AS(GUARD, 0, type, name, parameters, arguments)
// What the allocator asks before it can serve: this one does not even see to it that it does not come here again.
#define WRAP_EARLY(type, name, parameters, arguments) WRAP_AS(int inside = 0, 1, type, name, parameters, arguments)

WRAP(void *, mmap, (void *a, size_t l, int p, int f, int d, off_t o), (a, l, p, f, d, o))
WRAP(void *, mmap64, (void *a, size_t l, int p, int f, int d, off_t o), (a, l, p, f, d, o))
WRAP(int, munmap, (void *a, size_t l), (a, l))
WRAP(int, madvise, (void *a, size_t l, int v), (a, l, v))
WRAP(int, mprotect, (void *a, size_t l, int p), (a, l, p))
WRAP(int, mincore, (void *a, size_t l, unsigned char *v), (a, l, v))
WRAP(int, clock_gettime, (clockid_t c, struct timespec *t), (c, t))
WRAP(ssize_t, write, (int d, const void *b, size_t l), (d, b, l))
WRAP(int, sched_yield, (void), ())
WRAP(int, sched_getaffinity, (pid_t p, size_t l, cpu_set_t *s), (p, l, s))
WRAP(int, nanosleep, (const struct timespec *t, struct timespec *r), (t, r))
WRAP(pid_t, getpid, (void), ())
WRAP(pid_t, gettid, (void), ())
WRAP(ssize_t, getrandom, (void *b, size_t l, unsigned f), (b, l, f))
WRAP(int, sigaction, (int s, const struct sigaction *n, struct sigaction *o), (s, n, o))
WRAP(int, pthread_sigmask, (int h, const sigset_t *n, sigset_t *o), (h, n, o))
WRAP(int, sigpending, (sigset_t *s), (s))
WRAP(int, sigtimedwait, (const sigset_t *s, siginfo_t *i, const struct timespec *t), (s, i, t))
WRAP(int, raise, (int s), (s))
WRAP(int, pthread_key_create, (pthread_key_t *k, void (*d)(void *)), (k, d))
WRAP(int, pthread_setspecific, (pthread_key_t k, const void *v), (k, v))
WRAP(int, pthread_create, (pthread_t * t, const pthread_attr_t *a, void *(*f)(void *), void *x), (t, a, f, x))
WRAP(int, pthread_attr_init, (pthread_attr_t * a), (a))
WRAP(int, pthread_attr_setstacksize, (pthread_attr_t * a, size_t l), (a, l))
WRAP(int, pthread_attr_setdetachstate, (pthread_attr_t * a, int s), (a, s))
WRAP(int, pthread_attr_destroy, (pthread_attr_t * a), (a))
WRAP(int, dladdr, (const void *a, Dl_info *i), (a, i))
WRAP(char *, getenv, (const char *n), (n))
WRAP_EARLY(long, sysconf, (int n), (n))
WRAP_EARLY(unsigned long, getauxval, (unsigned long k), (k))

// With a number of arguments that differs: those that there may be are passed on.
void *mremap(void *address, size_t old, size_t length, int flags, ...) {
    GUARD;
    static void *(*real)(void *, size_t, size_t, int, ...);
    va_list rest;
    va_start(rest, flags);
    void *place = va_arg(rest, void *);
    va_end(rest);
    allocate(&inside, 0);
    if (!real)
        real = next(&inside, "mremap");
    return real(address, old, length, flags, place);
}

long syscall(long number, ...) {
    GUARD;
    static long (*real)(long, ...);
    long arguments[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++)
        arguments[i] = va_arg(rest, long);
    va_end(rest);
    allocate(&inside, 0);
    if (!real)
        real = next(&inside, "syscall");
    return real(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

int prctl(int option, ...) {
    GUARD;
    static int (*real)(int, ...);
    long arguments[4];
    va_list rest;
    va_start(rest, option);
    for (int i = 0; i < 4; i++)
        arguments[i] = va_arg(rest, long);
    va_end(rest);
    allocate(&inside, 0);
    if (!real)
        real = next(&inside, "prctl");
    return real(option, arguments[0], arguments[1], arguments[2], arguments[3]);
}
