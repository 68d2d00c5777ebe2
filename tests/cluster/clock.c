/* Clocks that jump: the seconds in the file CLOCK_FILE, two numbers, are added to the clock on the wall and to the one since boot. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile const int64_t *jumps(void) {
    static volatile const int64_t *found;
    const char *name = found ? 0 : getenv("CLOCK_FILE");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) found = mmap(0, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    return found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && jumps()) now->tv_sec += clock == CLOCK_REALTIME ? jumps()[0] : clock == CLOCK_BOOTTIME ? jumps()[1] : 0;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec told;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &told);
    now->tv_sec = told.tv_sec;
    now->tv_usec = told.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *there) {
    struct timespec told;
    clock_gettime(CLOCK_REALTIME, &told);
    if (there) *there = told.tv_sec;
    return told.tv_sec;
}
