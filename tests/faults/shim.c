/* A disk that fails while the file named by FAULT_FLAG is there; its first letter says how, and each failure adds one.
   "s": what is written can't be synced (EIO). "r": nothing can be written any more (EROFS). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef ssize_t (*write_fn)(int, const void *, size_t);
typedef ssize_t (*pwrite_fn)(int, const void *, size_t, off_t);

static int fails(char how) {
    const char *flag = getenv("FAULT_FLAG");
    int fd = flag ? open(flag, O_RDWR | O_APPEND) : -1;
    if (fd < 0) return 0;
    char told = 0;
    int hit = pread(fd, &told, 1, 0) == 1 && told == how;
    if (hit) hit = ((write_fn)dlsym(RTLD_NEXT, "write"))(fd, &how, 1) == 1;
    close(fd);
    errno = how == 's' ? EIO : EROFS;
    return hit;
}

static int is_file(int fd) {
    struct stat s;
    return fstat(fd, &s) == 0 && S_ISREG(s.st_mode);
}

static int sync_or_fail(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return fails('s') ? -1 : real(fd);
}

int fsync(int fd) { return sync_or_fail("fsync", fd); }
int fdatasync(int fd) { return sync_or_fail("fdatasync", fd); }

ssize_t write(int fd, const void *data, size_t size) {
    return is_file(fd) && fails('r') ? -1 : ((write_fn)dlsym(RTLD_NEXT, "write"))(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fails('r') ? -1 : ((pwrite_fn)dlsym(RTLD_NEXT, "pwrite"))(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
    return fails('r') ? -1 : ((pwrite_fn)dlsym(RTLD_NEXT, "pwrite64"))(fd, data, size, at);
}
