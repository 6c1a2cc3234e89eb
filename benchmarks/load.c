/* The load client: opens streams over HTTP/1.1, counts their items at memory speed and reads the server's own clock.
 *
 *   load stream HOST PORT PATH CONNECTIONS WARM_MS MEASURED_MS BRACES SESSION   items of streams that never end
 *   load short  HOST PORT PATH CONNECTIONS WARM_MS MEASURED_MS BRACES SESSION   whole streams, one after another, keep-alive
 *   load hold   HOST PORT PATH CONNECTIONS SPREAD_MS                            opens, says "ready", reads until stdin ends
 *   load first  HOST PORT PATH SAMPLES GAP_MS                                   time to the first item, a connection each
 *
 * An item is BRACES closing braces (for `short` the least a stream may have): no parser could keep up with the servers.
 * SESSION is the session id of the server; the processor time of every process in it is read from the kernel.
 * Answers are one line of JSON. Exit status 1 and a line on stderr when the server did not do what was asked.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER = 256 * 1024,
    EVENTS = 256,
    LIFETIME = 120, /* seconds: whatever happens, the run ends */
    PATIENCE = 5,   /* seconds to wait for one answer */
    OPENING = 64,   /* streams asked for and not yet answered: below every server's backlog */
    TAIL = 7,       /* the last chunk's end: CRLF 0 CRLF CRLF */
};

static const char STATUS[] = "HTTP/1.1 200";
static const char LAST_CHUNK[] = "\r\n0\r\n\r\n";

struct connection {
    int fd;
    bool answered;
    uint64_t braces; /* of the stream under way */
    uint64_t items;  /* braces, which are divided at the end, or whole streams in `short` */
    uint64_t before; /* items when the measurement began */
    char tail[TAIL];
};

struct times {
    double cpu;
    double wait; /* runnable, and another had the core */
};

static struct sockaddr_in server;
static char request[1024];
static int request_size;
static unsigned char buffer[BUFFER];
static int epoll;
static uint64_t braces; /* of an item, or the least of a stream */

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void pause_for(double seconds) {
    struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

static double own_cpu(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* ---- the server's processor time ---- */

static bool read_line(const char *path, char *line, int size) {
    FILE *file = fopen(path, "r");
    if (!file) return false; /* it ended between the listing and the reading */
    bool found = fgets(line, size, file) != NULL;
    fclose(file);
    return found;
}

static int session_of(const char *pid) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%.16s/stat", pid);
    if (!read_line(path, line, sizeof line)) return -1;
    char *after_name = strrchr(line, ')'); /* a name may hold spaces and parentheses */
    int session;
    return after_name && sscanf(after_name + 1, " %*c %*d %*d %d", &session) == 1 ? session : -1;
}

/* The process clock and not schedstat's own figure, which lags by up to a tick for a thread that is running. */
static double cpu_of(const char *pid) {
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(atoi(pid), &clock) || clock_gettime(clock, &t)) return 0;
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double wait_of(const char *pid) {
    char path[128], line[128];
    double total = 0, wait;
    snprintf(path, sizeof path, "/proc/%.16s/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) return 0;
    for (struct dirent *task; (task = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/%.16s/task/%.16s/schedstat", pid, task->d_name);
        if (task->d_name[0] != '.' && read_line(path, line, sizeof line) && sscanf(line, "%*f %lf", &wait) == 1)
            total += wait * 1e-9;
    }
    closedir(tasks);
    return total;
}

static struct times session_times(int session) {
    struct times total = {0, 0};
    DIR *processes = opendir("/proc");
    if (!processes) fail("/proc cannot be read");
    for (struct dirent *process; (process = readdir(processes));) {
        const char *pid = process->d_name;
        if (pid[0] < '1' || pid[0] > '9' || session_of(pid) != session) continue;
        total.cpu += cpu_of(pid);
        total.wait += wait_of(pid);
    }
    closedir(processes);
    if (total.cpu == 0) fail("no processor time found for session %d", session);
    return total;
}

/* ---- connections ---- */

static int connect_to_server(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (void *)&server, sizeof server)) fail("no connection: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){PATIENCE, 0}, sizeof(struct timeval));
    return fd;
}

static void ask(int fd) {
    if (send(fd, request, (size_t)request_size, MSG_NOSIGNAL) != request_size) fail("request not sent: %s", strerror(errno));
}

static void open_stream(struct connection *connection) {
    *connection = (struct connection){.fd = connect_to_server()};
    ask(connection->fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event);
}

static struct connection *open_streams(int count) {
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    for (int i = 0; i < count; i++) open_stream(&connections[i]);
    return connections;
}

static uint64_t count_braces(size_t size) {
    uint64_t total = 0;
    for (size_t i = 0; i < size;) { /* a narrow counter for each block lets the compiler vectorise the loop */
        size_t end = i + 16384 < size ? i + 16384 : size;
        uint32_t block = 0;
        for (; i < end; i++) block += buffer[i] == '}';
        total += block;
    }
    return total;
}

/* Reads what is there into the buffer; checks the status where an answer begins. */
static size_t receive(struct connection *connection) {
    ssize_t size = recv(connection->fd, buffer, BUFFER, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (size <= 0) fail("the server closed a stream: %s", size ? strerror(errno) : "end of file");
    if (!connection->answered && (size < (ssize_t)sizeof STATUS - 1 || memcmp(buffer, STATUS, sizeof STATUS - 1)))
        fail("expected %s, found: %.*s", STATUS, (int)(size < 60 ? size : 60), (char *)buffer);
    connection->answered = true;
    return (size_t)size;
}

static void count_items(struct connection *connection) {
    connection->items += count_braces(receive(connection));
}

static void keep_tail(struct connection *connection, size_t size) {
    size_t fresh = size < TAIL ? size : TAIL;
    memmove(connection->tail, connection->tail + fresh, TAIL - fresh);
    memcpy(connection->tail + TAIL - fresh, buffer + size - fresh, fresh);
}

static void count_streams(struct connection *connection) {
    size_t size = receive(connection);
    connection->braces += count_braces(size);
    keep_tail(connection, size);
    /* Nothing is pipelined, so the end of an answer is always the end of what was received. */
    if (memcmp(connection->tail, LAST_CHUNK, TAIL)) return;
    if (connection->braces < braces) fail("a stream of %lu braces, expected %lu", connection->braces, braces);
    connection->items++;
    connection->braces = 0;
    connection->answered = false;
    memset(connection->tail, 0, TAIL);
    ask(connection->fd);
}

/* ---- the modes ---- */

static void read_until(double end, void (*on_data)(struct connection *)) {
    struct epoll_event events[EVENTS];
    while (now() < end) {
        int count = epoll_wait(epoll, events, EVENTS, 10);
        for (int i = 0; i < count; i++) on_data(events[i].data.ptr);
    }
}

static void measure(char **arguments, bool whole_streams) {
    int count = atoi(arguments[0]), session = atoi(arguments[4]);
    braces = (uint64_t)atoi(arguments[3]);
    double warm = atoi(arguments[1]) * 1e-3, measured = atoi(arguments[2]) * 1e-3;
    void (*on_data)(struct connection *) = whole_streams ? count_streams : count_items;
    struct connection *connections = open_streams(count);

    read_until(now() + warm, on_data);
    for (int i = 0; i < count; i++) connections[i].before = connections[i].items;
    struct times before = session_times(session);
    double client = own_cpu(), start = now();
    read_until(start + measured, on_data);
    double seconds = now() - start;
    client = own_cpu() - client;
    struct times after = session_times(session);

    uint64_t total = 0, slowest = UINT64_MAX, fastest = 0;
    for (int i = 0; i < count; i++) {
        uint64_t items = (connections[i].items - connections[i].before) / (whole_streams ? 1 : braces);
        total += items;
        if (items < slowest) slowest = items;
        if (items > fastest) fastest = items;
    }
    printf("{\"items\":%lu,\"slowest\":%lu,\"fastest\":%lu,\"seconds\":%.6f,\"cpu\":%.6f,\"wait\":%.6f,\"client\":%.6f}\n",
           total, slowest, fastest, seconds, after.cpu - before.cpu, after.wait - before.wait, client);
}

static void stream(char **arguments) { measure(arguments, false); }
static void whole(char **arguments) { measure(arguments, true); }

static void hold(char **arguments) {
    int count = atoi(arguments[0]), opened = 0, answered = 0;
    double spread = atoi(arguments[1]) * 1e-3, start = now();
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    struct epoll_event events[EVENTS], input = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input);
    for (;;) {
        while (opened < count && opened - answered < OPENING && now() >= start + spread * opened / count)
            open_stream(&connections[opened++]);
        int ready = epoll_wait(epoll, events, EVENTS, opened < count ? 1 : 1000);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection) return; /* stdin has ended */
            bool waiting = connection->items == 0;
            count_items(connection);
            if (waiting && connection->items && ++answered == count) {
                puts("ready");
                fflush(stdout);
            }
        }
    }
}

static double time_to_first_item(void) {
    struct connection connection = {0};
    double start = now();
    connection.fd = connect_to_server();
    ask(connection.fd);
    while (!connection.items) {
        ssize_t peeked = recv(connection.fd, buffer, 1, MSG_PEEK);
        if (peeked < 0) fail("no item within %d s", PATIENCE);
        connection.items += count_braces(receive(&connection));
    }
    double elapsed = now() - start;
    close(connection.fd);
    return elapsed;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void first(char **arguments) {
    int samples = atoi(arguments[0]);
    double gap = atoi(arguments[1]) * 1e-3;
    double *elapsed = calloc((size_t)samples, sizeof *elapsed);
    srand48(1);
    for (int i = 0; i < samples; i++) {
        pause_for(gap * (0.5 + drand48())); /* a fixed gap could fall into step with the server's timers */
        elapsed[i] = time_to_first_item();
    }
    qsort(elapsed, (size_t)samples, sizeof *elapsed, ascending);
    printf("{\"p50\":%.9f,\"p95\":%.9f}\n", elapsed[samples / 2], elapsed[samples * 95 / 100]);
}

static const struct mode {
    const char *name;
    int arguments;
    void (*run)(char **);
} MODES[] = {{"stream", 5, stream}, {"short", 5, whole}, {"hold", 2, hold}, {"first", 2, first}};

int main(int argc, char **argv) {
    const struct mode *mode = NULL;
    for (size_t i = 0; argc > 4 && i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(argv[1], MODES[i].name) && argc == 5 + MODES[i].arguments) mode = &MODES[i];
    if (!mode) {
        fprintf(stderr, "usage: load stream|short|hold|first HOST PORT PATH ...\n");
        return 2;
    }
    alarm(LIFETIME);
    epoll = epoll_create1(0);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    inet_pton(AF_INET, argv[2], &server.sin_addr);
    request_size = snprintf(request, sizeof request,
                            "GET %s HTTP/1.1\r\nHost: %s:%s\r\nAccept: text/event-stream\r\n\r\n", argv[4], argv[2], argv[3]);
    mode->run(argv + 5);
    return 0;
}
