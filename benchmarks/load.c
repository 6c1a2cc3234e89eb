/* The load client: opens streams over HTTP, WebSocket or TCP, counts items at memory speed, reads the server's clock.
 *
 *   load MODE TRANSPORT HOST PORT PATH MESSAGE ...     TRANSPORT is http, ws or tcp; MESSAGE opens a stream, "" is none
 *
 *   stream CONNECTIONS WARM_MS MEASURED_MS BRACES SESSION          items of streams that never end
 *   short  CONNECTIONS STREAMS WARM_MS MEASURED_MS ITEMS SESSION   whole streams of so many items, so many at once
 *   up     WARM ITEMS ITEM END SESSION                             items up a client stream, start to result
 *   hold   CONNECTIONS SPREAD_MS                                   opens, says "ready", reads until stdin ends
 *   first  SAMPLES GAP_MS                                          time to the first item, a connection each
 *
 * Over HTTP an item is BRACES closing braces (in `short` one), elsewhere a message: no parser could keep up with the
 * servers. SESSION is the session id of the server; the processor time of every process in it is read from the kernel.
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
    LONGEST = 1024, /* a message either way, or the head of an answer to an upgrade */
    AT_ONCE = 128,  /* streams on one connection */
    ID_DIGITS = 8,
    BATCH = 512, /* items up joined into one send */
};

static const char LAST_CHUNK[] = "\r\n0\r\n\r\n";
static const char ENVELOPE[] = "{\"type\":\"";
static const char ID[] = "\"id\":\"";
static const char DATA[] = "{\"type\":\"stream:data\",\"id\":\"";
static const char END[] = "{\"type\":\"stream:end\",\"id\":\"";
static const unsigned char MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

struct connection {
    int fd;
    bool answered;   /* the status of an answer, or all of its head where messages follow */
    uint64_t items;  /* or braces, which are divided at the end, or whole streams in `short` */
    uint64_t before; /* items when the measurement began */

    uint64_t braces; /* of the stream under way */
    char tail[TAIL];

    size_t kept; /* of a message that is not yet whole */
    unsigned char rest[LONGEST];
    uint8_t seen[AT_ONCE]; /* items of each stream under way */
};

struct times {
    double cpu;
    double wait; /* runnable, and another had the core */
};

struct frame {
    size_t head; /* 0: it is not yet all there */
    size_t payload;
    bool control; /* nothing of the streams */
};

struct transport {
    const char *name;
    const char *status; /* of the answer to the request; NULL: there is no request */
    size_t (*write_frame)(unsigned char *frame, const char *payload, size_t size);
    struct frame (*read_frame)(const unsigned char *data, size_t size);
    void (*count_items)(struct connection *);
    void (*count_streams)(struct connection *);
};

static struct sockaddr_in server;
static const struct transport *transport;
static int epoll;
static unsigned char buffer[LONGEST + BUFFER];

static char request[1024];
static size_t request_size;
static const char *message;  /* opens a stream */
static uint64_t at_once = 1; /* streams on a connection that messages open */
static uint64_t expected;    /* braces of an item, items of a whole stream, or items that went up */
static unsigned char outgoing[AT_ONCE * LONGEST];
static size_t outgoing_size;

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
    struct timeval patience = {PATIENCE, 0};
    if (fd < 0 || connect(fd, (void *)&server, sizeof server)) fail("no connection: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

static void send_all(int fd, const void *data, size_t size) {
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) fail("%zu bytes not sent: %s", size, strerror(errno));
}

/* Puts the message that opens a stream into `outgoing`, with this number for an id where it has one. */
static void add_opening(uint64_t id) {
    char text[LONGEST];
    strcpy(text, message);
    char *digits = strstr(text, ID);
    for (int i = ID_DIGITS; digits && i-- > 0; id /= 10) digits[sizeof ID - 1 + (size_t)i] = (char)('0' + id % 10);
    outgoing_size += transport->write_frame(outgoing + outgoing_size, text, strlen(text));
}

static void send_outgoing(int fd) {
    if (outgoing_size) send_all(fd, outgoing, outgoing_size);
    outgoing_size = 0;
}

static void open_by_message(struct connection *connection) {
    if (!*message) return;
    for (uint64_t id = 0; id < at_once; id++) add_opening(id);
    send_outgoing(connection->fd);
}

static void open_stream(struct connection *connection) {
    *connection = (struct connection){.fd = connect_to_server(), .answered = !transport->status};
    if (transport->status) send_all(connection->fd, request, request_size);
    else open_by_message(connection);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event);
}

static struct connection *open_streams(int count) {
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    for (int i = 0; i < count; i++) open_stream(&connections[i]);
    return connections;
}

/* Reads what is there into the buffer, behind what was kept; 0: nothing is there. */
static size_t receive(struct connection *connection) {
    ssize_t size = recv(connection->fd, buffer + connection->kept, BUFFER, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (size <= 0) fail("the server closed a stream: %s", size ? strerror(errno) : "end of file");
    memcpy(buffer, connection->rest, connection->kept);
    return (size_t)size + connection->kept;
}

static void check_status(size_t size) {
    size_t wanted = strlen(transport->status);
    if (size < wanted || memcmp(buffer, transport->status, wanted))
        fail("expected %s, found: %.*s", transport->status, (int)(size < 60 ? size : 60), (char *)buffer);
}

/* ---- HTTP: braces ---- */

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

static size_t receive_body(struct connection *connection) {
    size_t size = receive(connection);
    if (size && !connection->answered) check_status(size);
    connection->answered |= size > 0;
    return size;
}

static void count_braced_items(struct connection *connection) {
    connection->items += count_braces(receive_body(connection));
}

static void keep_tail(struct connection *connection, size_t size) {
    size_t fresh = size < TAIL ? size : TAIL;
    memmove(connection->tail, connection->tail + fresh, TAIL - fresh);
    memcpy(connection->tail + TAIL - fresh, buffer + size - fresh, fresh);
}

static void count_bodies(struct connection *connection) {
    size_t size = receive_body(connection);
    connection->braces += count_braces(size);
    keep_tail(connection, size);
    /* Nothing is pipelined, so the end of an answer is always the end of what was received. */
    if (memcmp(connection->tail, LAST_CHUNK, TAIL)) return;
    if (connection->braces < expected) fail("a stream of %lu braces, expected %lu", connection->braces, expected);
    connection->items++;
    connection->braces = 0;
    connection->answered = false;
    memset(connection->tail, 0, TAIL);
    send_all(connection->fd, request, request_size);
}

/* ---- WebSocket and TCP: messages ---- */

static size_t write_tcp_frame(unsigned char *frame, const char *payload, size_t size) {
    memcpy(frame, &(uint32_t){htonl((uint32_t)size)}, 4);
    memcpy(frame + 4, payload, size);
    return 4 + size;
}

static struct frame read_tcp_frame(const unsigned char *data, size_t size) {
    uint32_t payload;
    if (size < 4) return (struct frame){0};
    memcpy(&payload, data, 4);
    return (struct frame){.head = 4, .payload = ntohl(payload)};
}

/* RFC 6455, 5.2; one mask serves all frames, for it hides nothing here. */
static size_t write_ws_frame(unsigned char *frame, const char *payload, size_t size) {
    size_t head = size < 126 ? 2 : 4;
    frame[0] = 0x81;
    frame[1] = 0x80 | (size < 126 ? (unsigned char)size : 126);
    if (size >= 126) memcpy(frame + 2, &(uint16_t){htons((uint16_t)size)}, 2);
    memcpy(frame + head, MASK, 4);
    head += 4;
    for (size_t i = 0; i < size; i++) frame[head + i] = (unsigned char)payload[i] ^ MASK[i & 3];
    return head + size;
}

static struct frame read_ws_frame(const unsigned char *data, size_t size) {
    if (size < 2) return (struct frame){0};
    if (data[0] != 0x81 && data[0] != 0x89) fail("expected a whole text message, found a frame of 0x%02x", data[0]);
    struct frame frame = {.head = 2, .payload = data[1], .control = data[0] == 0x89};
    if (data[1] == 126) {
        if (size < 4) return (struct frame){0};
        frame.head = 4;
        frame.payload = (size_t)data[2] << 8 | data[3];
    }
    return frame;
}

/* The answer to the upgrade; the place where its messages begin, 0 where it is not yet all there. */
static size_t read_upgrade(struct connection *connection, size_t size) {
    unsigned char *end = memmem(buffer, size, "\r\n\r\n", 4);
    if (!end) return 0;
    check_status(size);
    connection->answered = true;
    open_by_message(connection);
    return (size_t)(end - buffer) + 4;
}

static void keep(struct connection *connection, const unsigned char *data, size_t size) {
    if (size > LONGEST) fail("expected messages of at most %d bytes, found more", LONGEST);
    memcpy(connection->rest, data, size);
    connection->kept = size;
}

typedef void (*on_message)(struct connection *, const char *text, size_t size);

static void take_messages(struct connection *connection, on_message take) {
    size_t size = receive(connection), at = 0;
    if (!size) return;
    if (!connection->answered) at = read_upgrade(connection, size);
    while (connection->answered) {
        struct frame frame = transport->read_frame(buffer + at, size - at);
        if (!frame.head || frame.head + frame.payload > size - at) break;
        if (!frame.control) take(connection, (const char *)buffer + at + frame.head, frame.payload);
        at += frame.head + frame.payload;
    }
    keep(connection, buffer + at, size - at);
    send_outgoing(connection->fd);
}

static bool begins(const char *text, size_t size, const char *with, size_t length) {
    return size >= length && !memcmp(text, with, length);
}

static void fail_at(const char *text, size_t size) {
    fail("unexpected message: %.*s", (int)(size < 300 ? size : 300), text);
}

/* Some peers send bare items; of what has an envelope only items are expected. */
static void take_item(struct connection *connection, const char *text, size_t size) {
    bool bare = !begins(text, size, ENVELOPE, sizeof ENVELOPE - 1);
    if (!bare && !begins(text, size, DATA, sizeof DATA - 1)) fail_at(text, size);
    connection->items++;
}

static void take_of_stream(struct connection *connection, const char *text, size_t size) {
    if (begins(text, size, DATA, sizeof DATA - 1)) {
        connection->seen[strtoul(text + sizeof DATA - 1, NULL, 10) % at_once]++;
        return;
    }
    if (!begins(text, size, END, sizeof END - 1)) fail_at(text, size);
    uint64_t id = strtoul(text + sizeof END - 1, NULL, 10);
    uint8_t *seen = &connection->seen[id % at_once];
    if (*seen != expected) fail("a stream of %u items, expected %lu", *seen, expected);
    *seen = 0;
    connection->items++;
    add_opening(id + at_once);
}

static void take_result(struct connection *connection, const char *text, size_t size) {
    char wanted[32];
    snprintf(wanted, sizeof wanted, "\"count\":%lu", expected);
    if (!memmem(text, size, wanted, strlen(wanted))) fail_at(text, size);
    connection->items += expected;
}

static void take_nothing(struct connection *connection, const char *text, size_t size) {
    (void)connection;
    fail_at(text, size);
}

static void count_messages(struct connection *connection) { take_messages(connection, take_item); }
static void count_ends(struct connection *connection) { take_messages(connection, take_of_stream); }

static const struct transport TRANSPORTS[] = {
    {"http", "HTTP/1.1 200", NULL, NULL, count_braced_items, count_bodies},
    {"ws", "HTTP/1.1 101", write_ws_frame, read_ws_frame, count_messages, count_ends},
    {"tcp", NULL, write_tcp_frame, read_tcp_frame, count_messages, count_ends},
};

/* ---- the modes ---- */

struct sample {
    struct times server;
    double client, at;
};

static struct sample sample(int session) {
    return (struct sample){session_times(session), own_cpu(), now()};
}

static void print_load(uint64_t total, uint64_t slowest, uint64_t fastest, struct sample from, struct sample to) {
    printf("{\"items\":%lu,\"slowest\":%lu,\"fastest\":%lu,", total, slowest, fastest);
    printf("\"seconds\":%.6f,\"cpu\":%.6f,\"wait\":%.6f,\"client\":%.6f}\n", to.at - from.at,
           to.server.cpu - from.server.cpu, to.server.wait - from.server.wait, to.client - from.client);
}

static void read_until(double end, void (*on_data)(struct connection *)) {
    struct epoll_event events[EVENTS];
    while (now() < end) {
        int count = epoll_wait(epoll, events, EVENTS, 10);
        for (int i = 0; i < count; i++) on_data(events[i].data.ptr);
    }
}

static void measure(int count, char **arguments, int session, void (*on_data)(struct connection *), uint64_t unit) {
    double warm = atoi(arguments[0]) * 1e-3, measured = atoi(arguments[1]) * 1e-3;
    struct connection *connections = open_streams(count);

    read_until(now() + warm, on_data);
    for (int i = 0; i < count; i++) connections[i].before = connections[i].items;
    struct sample from = sample(session);
    read_until(from.at + measured, on_data);
    struct sample to = sample(session);

    uint64_t total = 0, slowest = UINT64_MAX, fastest = 0;
    for (int i = 0; i < count; i++) {
        uint64_t items = (connections[i].items - connections[i].before) / unit;
        total += items;
        if (items < slowest) slowest = items;
        if (items > fastest) fastest = items;
    }
    print_load(total, slowest, fastest, from, to);
}

static void stream(char **arguments) {
    expected = (uint64_t)atoi(arguments[3]);
    measure(atoi(arguments[0]), arguments + 1, atoi(arguments[4]), transport->count_items,
            transport->read_frame ? 1 : expected);
}

static void whole(char **arguments) {
    at_once = (uint64_t)atoi(arguments[1]);
    expected = (uint64_t)atoi(arguments[4]);
    if (at_once < 1 || at_once > AT_ONCE) fail("expected 1 to %d streams at once, found %lu", AT_ONCE, at_once);
    measure(atoi(arguments[0]), arguments + 2, atoi(arguments[5]), transport->count_streams, 1);
}

/* Waits for something to read and leaves it there. */
static void await_data(int fd) {
    if (recv(fd, buffer, 1, MSG_PEEK) < 0) fail("no answer within %d s", PATIENCE);
}

static void upload(struct connection *connection, uint64_t count, const char *item, const char *end) {
    static unsigned char batch[BATCH * LONGEST];
    size_t size = 0;
    for (int i = 0; i < BATCH; i++) size = transport->write_frame(batch + size * (size_t)i, item, strlen(item));
    expected = count;
    connection->items = 0;
    open_by_message(connection);
    for (uint64_t sent = 0; sent < count; sent += BATCH)
        send_all(connection->fd, batch, size * (count - sent < BATCH ? count - sent : BATCH));
    outgoing_size = transport->write_frame(outgoing, end, strlen(end));
    send_outgoing(connection->fd);
    while (!connection->items) {
        await_data(connection->fd);
        take_messages(connection, take_result);
    }
}

static void up(char **arguments) {
    int session = atoi(arguments[4]);
    const char *opening = message;
    struct connection connection;
    message = ""; /* an upload sends it */
    open_stream(&connection);
    while (!connection.answered) {
        await_data(connection.fd);
        take_messages(&connection, take_nothing);
    }
    message = opening;
    upload(&connection, (uint64_t)atol(arguments[0]), arguments[2], arguments[3]);
    struct sample from = sample(session);
    upload(&connection, (uint64_t)atol(arguments[1]), arguments[2], arguments[3]);
    print_load(connection.items, connection.items, connection.items, from, sample(session));
}

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
            transport->count_items(connection);
            if (waiting && connection->items && ++answered == count) {
                puts("ready");
                fflush(stdout);
            }
        }
    }
}

static double time_to_first_item(void) {
    struct connection connection;
    double start = now();
    open_stream(&connection);
    while (!connection.items) {
        await_data(connection.fd);
        transport->count_items(&connection);
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
} MODES[] = {{"stream", 5, stream}, {"short", 6, whole}, {"up", 5, up}, {"hold", 2, hold}, {"first", 2, first}};

static void prepare_request(const char *host, const char *port, const char *path) {
    static const char UPGRADE[] = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const char *fields = transport->read_frame ? UPGRADE : "Accept: text/event-stream\r\n";
    request_size = (size_t)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s:%s\r\n%s\r\n", path, host,
                                    port, fields);
}

int main(int argc, char **argv) {
    const struct mode *mode = NULL;
    for (size_t i = 0; argc > 6 && i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(argv[1], MODES[i].name) && argc == 7 + MODES[i].arguments) mode = &MODES[i];
    for (size_t i = 0; mode && i < sizeof TRANSPORTS / sizeof *TRANSPORTS; i++)
        if (!strcmp(argv[2], TRANSPORTS[i].name)) transport = &TRANSPORTS[i];
    if (!transport || strlen(argv[6]) >= LONGEST - 8) {
        fprintf(stderr, "usage: load stream|short|up|hold|first http|ws|tcp HOST PORT PATH MESSAGE ...\n");
        return 2;
    }
    alarm(LIFETIME);
    epoll = epoll_create1(0);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[4]))};
    inet_pton(AF_INET, argv[3], &server.sin_addr);
    prepare_request(argv[3], argv[4], argv[5]);
    message = argv[6];
    mode->run(argv + 7);
    return 0;
}
