/* The lab's stateful RTP service inside a virtual machine. It speaks what workload/packets.py describes: it answers every
 * RTP packet and probe, counts them, and writes its counters and the copy's identity into the reply.
 *
 * The state lives in this process' memory alone, so a checkpoint of the machine is a checkpoint of the state. Which copy
 * answers cannot come from there: both copies have the same memory. It is asked of the machine for every reply, through
 * QEMU's firmware configuration device (docs/specs/fw_cfg.rst), whose contents belong to the host's side and are not part
 * of a checkpoint. Usage: service (as root: it needs the device's I/O ports), or service NAME on a machine without that
 * device: every copy then answers by this name. */
#include <arpa/inet.h>
#include <endian.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RTP_PORT = 5004, PROBE_PORT = 5006, PAYLOAD = 160, CLIENTS_MAX = 1024, BATCH = 64 };
enum { SELECTOR = 0x510, DATA = 0x511, DIRECTORY = 0x19, MARK = 8, ENTRIES_MAX = 256 };

static const char identity_file[] = "opt/tunnelswitch/copy";

struct identity {
    char run_hex[16]; /* of this start of the hypervisor */
    char site[16];    /* padded with blanks */
} __attribute__((packed));

struct entry {
    uint32_t size;
    uint16_t select, reserved;
    char name[56];
} __attribute__((packed));

struct rtp_reply {
    uint8_t first, second;
    uint16_t sequence;
    uint32_t timestamp, ssrc;
    char magic[4];
    uint64_t counter, client_counter;
    uint8_t run[8];
    char site[16];
    uint8_t padding[PAYLOAD - 44];
} __attribute__((packed));

struct probe_request {
    char magic[4];
    uint64_t sequence, sent_ns;
} __attribute__((packed));

struct probe_reply {
    char magic[4];
    uint64_t sequence, sent_ns, counter;
    uint8_t run[8];
    char site[16];
} __attribute__((packed));

static uint16_t identity_selector;
static struct identity raw;
static uint8_t run[8];
static char site[16];
static uint64_t packets, probes;
static struct { uint32_t ssrc; uint64_t packets; } clients[CLIENTS_MAX];
static size_t clients_known;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void select_file(uint16_t selector) { outw(selector, SELECTOR); }

static void read_bytes(void *to, size_t length) {
    for (uint8_t *byte = to; length--; byte++) *byte = inb(DATA);
}

static void find_identity(void) {
    uint32_t count;
    if (iopl(3)) fail("service: no I/O ports");
    select_file(DIRECTORY);
    read_bytes(&count, sizeof count);
    count = be32toh(count);
    for (uint32_t i = 0; i < count && i < ENTRIES_MAX; i++) {
        struct entry entry;
        read_bytes(&entry, sizeof entry);
        if (!strncmp(entry.name, identity_file, sizeof entry.name) && be32toh(entry.size) == sizeof raw)
            identity_selector = be16toh(entry.select);
    }
    if (!identity_selector) {
        fprintf(stderr, "service: the machine has no %s of %zu bytes\n", identity_file, sizeof raw);
        exit(1);
    }
}

static uint8_t digit(char hex) { return hex <= '9' ? hex - '0' : (hex | 32) - 'a' + 10; }

/* Which copy are we now? The first characters tell whether it is still the one it was at the last packet. */
static void identify(void) {
    char mark[MARK];
    if (!identity_selector) return;
    select_file(identity_selector);
    read_bytes(mark, MARK);
    if (!memcmp(mark, raw.run_hex, MARK)) return;
    select_file(identity_selector);
    read_bytes(&raw, sizeof raw);
    for (int i = 0; i < 8; i++) run[i] = digit(raw.run_hex[2 * i]) << 4 | digit(raw.run_hex[2 * i + 1]);
    for (int i = 0; i < 16; i++) site[i] = raw.site[i] == ' ' ? 0 : raw.site[i];
}

static uint64_t count_client(uint32_t ssrc) {
    for (size_t i = 0; i < clients_known; i++)
        if (clients[i].ssrc == ssrc) return ++clients[i].packets;
    if (clients_known == CLIENTS_MAX) return 0;
    clients[clients_known].ssrc = ssrc;
    return ++clients[clients_known++].packets;
}

static size_t answer_rtp(const uint8_t *data, size_t length, struct rtp_reply *reply) {
    if (length < 12 || (data[0] & 0xC0) != 0x80) return 0;
    uint8_t type = data[1] & 0x7F;
    if (type >= 72 && type <= 76) return 0;                          /* RTCP (RFC 5761, section 4) */
    if (length >= 16 && !memcmp(data + 12, "TSWR", 4)) return 0;     /* never answer an answer */
    memcpy(reply, data, 12);
    reply->first = 0x80;
    memcpy(reply->magic, "TSWR", 4);
    reply->counter = htobe64(++packets);
    reply->client_counter = htobe64(count_client(reply->ssrc));
    memcpy(reply->run, run, sizeof run);
    memcpy(reply->site, site, sizeof site);
    memset(reply->padding, 0xFF, sizeof reply->padding);
    return sizeof *reply;
}

static size_t answer_probe(const uint8_t *data, size_t length, struct probe_reply *reply) {
    const struct probe_request *request = (const void *)data;
    if (length != sizeof *request || memcmp(request->magic, "TSWP", 4)) return 0;
    memcpy(reply->magic, "TSWQ", 4);
    reply->sequence = request->sequence;
    reply->sent_ns = request->sent_ns;
    reply->counter = htobe64(++probes);
    memcpy(reply->run, run, sizeof run);
    memcpy(reply->site, site, sizeof site);
    return sizeof *reply;
}

static void serve(int fd, int is_probe) {
    for (int i = 0; i < BATCH; i++) {
        uint8_t data[2048];
        union { struct rtp_reply rtp; struct probe_reply probe; } reply;
        struct sockaddr_in client;
        socklen_t length = sizeof client;
        ssize_t got = recvfrom(fd, data, sizeof data, MSG_DONTWAIT, (void *)&client, &length);
        if (got < 0) return;
        identify();
        size_t size = is_probe ? answer_probe(data, got, &reply.probe) : answer_rtp(data, got, &reply.rtp);
        if (size) sendto(fd, &reply, size, 0, (void *)&client, length);
    }
}

static int open_port(uint16_t port) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (void *)&here, sizeof here)) fail("service: cannot listen");
    return fd;
}

int main(int count, char **arguments) {
    if (count > 1) {
        snprintf(raw.site, sizeof raw.site, "%s", arguments[1]);
        memcpy(site, raw.site, sizeof site);
    } else {
        find_identity();
        identify();
    }
    struct pollfd ports[2] = {{open_port(RTP_PORT), POLLIN, 0}, {open_port(PROBE_PORT), POLLIN, 0}};
    printf("service: ready as %.16s at %.16s\n", raw.run_hex, raw.site);
    fflush(stdout);
    for (;;) {
        if (poll(ports, 2, -1) < 0) continue;
        for (int i = 0; i < 2; i++)
            if (ports[i].revents) serve(ports[i].fd, i);
    }
}
