/* Which folder is ours is what /proc/self/cgroup and /proc/self/mountinfo say together: the first has the path of the group as seen from
   the root of our cgroup namespace, the second which part of the hierarchy is mounted where. In a container without a namespace of
   its own, the mount begins at the container's group, and the path does not.

   Limits count up to the highest group that can be seen. What a namespace hides is not known, but in version 1, where memory.stat
   tells the limit in force. */
#include "platform/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define MOUNTED_AT "/sys/fs/cgroup"
#define ENDLESS ((uint64_t)1 << 62) /* version 1 has no word for "no limit" */

static void
forget(pmt__cgroup_figures *now)
{
    *now = (pmt__cgroup_figures){
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        PMT_UNKNOWN,
        {PMT_UNKNOWN, PMT_UNKNOWN, PMT_UNKNOWN, PMT_UNKNOWN},
    };
}

void
pmt__cgroup_init(pmt__cgroup *self, const char *root, const char *proc)
{
    memset(self, 0, sizeof *self);
    self->root = root;
    self->proc = proc;
    forget(&self->now);
}

static void
group_close(pmt__cgroup *self)
{
    pmt__kept *files[] = {&self->usage, &self->events, &self->oom_control, &self->pressure,
                          &self->stat};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        pmt__kept_close(files[i]);
    }
    for (size_t i = 0; i < self->limit_count; i++) {
        pmt__kept_close(&self->limits[i].limit);
        pmt__kept_close(&self->limits[i].high);
    }
    self->limit_count = 0;
    self->found = 0;
}

void
pmt__cgroup_close(pmt__cgroup *self)
{
    group_close(self);
    pmt__kept_close(&self->membership);
    self->known = 0;
}

/* --- which group ------------------------------------------------------------------------------------------------------- */

/* Is the word in the list, which ends at `end`? */
static int
has_word(const char *list, const char *end, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; at < end; at++) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma == NULL ? end : comma;
        if ((size_t)(stop - at) == length && memcmp(at, word, length) == 0) {
            return 1;
        }
        at = stop;
    }
    return 0;
}

/* "4:cpu,memory:/a/b" or "0::/a/b" */
static int
membership_line(void *context, char *line)
{
    pmt__cgroup *self = context;
    const char *first = strchr(line, ':');
    const char *second = first == NULL ? NULL : strchr(first + 1, ':');
    if (second == NULL || second[1] != '/') {
        return 0;
    }
    int unified = strncmp(line, "0::", 3) == 0;
    int wanted = unified ? self->asked.version == 0 : has_word(first + 1, second, "memory");
    if (wanted && strlen(second + 1) < sizeof self->asked.path) {
        self->asked.version = unified ? 2 : 1;
        strcpy(self->asked.path, second + 1);
    }
    return 0;
}

/* Whether it is another group than before. */
static int
membership_read(pmt__cgroup *self)
{
    self->asked.version = 0;
    self->asked.path[0] = '\0';
    snprintf(self->name, sizeof self->name, "%s/self/cgroup", self->proc);
    int fd = pmt__kept_fd(&self->membership, self->name, O_RDONLY);
    if (fd >= 0) {
        pmt__lines_read(fd, self->text, sizeof self->text, membership_line, self);
    }
    int changed = self->asked.version != self->version || strcmp(self->asked.path, self->path) != 0;
    self->version = self->asked.version;
    strcpy(self->path, self->asked.path);
    return changed;
}

/* --- where it is ------------------------------------------------------------------------------------------------------- */

/* The folder of a path in a hierarchy that is mounted at `mount`, if there is one. */
static int
folder_try(pmt__cgroup *self, const char *mount, const char *path)
{
    int moved = strncmp(mount, MOUNTED_AT, strlen(MOUNTED_AT)) == 0;
    const char *rest = moved ? mount + strlen(MOUNTED_AT) : mount;
    int n = snprintf(self->folder, sizeof self->folder, "%s%s", moved ? self->root : "", rest);
    if (n < 0 || (size_t)n >= sizeof self->folder) {
        return 0;
    }
    self->mount_length = self->folder_length = (size_t)n;
    if (strcmp(path, "/") != 0) {
        size_t length = strlen(path);
        if (length >= sizeof self->folder - self->folder_length) {
            return 0;
        }
        memcpy(self->folder + self->folder_length, path, length + 1);
        self->folder_length += length;
    }
    return access(self->folder, F_OK) == 0;
}

/* Cuts the next field off a line of mountinfo; blanks in it are written "\040". */
static char *
field_next(char **at)
{
    char *field = *at, *out = *at, *in = *at;
    for (; *in != '\0' && *in != ' '; in++) {
        if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7'
            && in[3] >= '0' && in[3] <= '7') {
            *out++ = (char)((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0'));
            in += 3;
        } else {
            *out++ = *in;
        }
    }
    *at = *in == ' ' ? in + 1 : in;
    *out = '\0';
    return field;
}

typedef struct mounts {
    pmt__cgroup *cgroup;
    int seen; /* the hierarchy is mounted */
} mounts;

/* "36 35 98:0 /root /mount/point rw,relatime shared:1 - cgroup2 cgroup2 rw,nsdelegate" */
static int
mount_line(void *context, char *line)
{
    mounts *self = context;
    pmt__cgroup *cgroup = self->cgroup;
    char *dash = strstr(line, " - cgroup"); /* the line lies in cgroup->text */
    if (dash == NULL) {
        return 0;
    }
    char *at = dash + strlen(" - ");
    const char *type = field_next(&at);
    field_next(&at); /* the source */
    const char *options = field_next(&at);
    int version = strcmp(type, "cgroup2") == 0 ? 2 : strcmp(type, "cgroup") == 0 ? 1 : 0;
    if (version != cgroup->version
        || (version == 1 && !has_word(options, options + strlen(options), "memory"))) {
        return 0;
    }
    self->seen = 1;
    at = line;
    for (int i = 0; i < 3; i++) {
        field_next(&at);
    }
    const char *root = field_next(&at), *mount = field_next(&at), *path = cgroup->path;
    if (strcmp(root, "/") != 0) {
        size_t length = strlen(root);
        if (strncmp(path, root, length) != 0 || (path[length] != '/' && path[length] != '\0')) {
            return 0;
        }
        path = path[length] == '\0' ? "/" : path + length;
    }
    return folder_try(cgroup, mount, path);
}

static int
folder_find(pmt__cgroup *self)
{
    mounts all = {self, 0};
    snprintf(self->name, sizeof self->name, "%s/self/mountinfo", self->proc);
    pmt__kept file = {0, 0, 0, 0};
    int fd = self->version == 0 ? -1 : pmt__kept_fd(&file, self->name, O_RDONLY);
    self->folder[0] = '\0';
    self->folder_length = 0;
    if (fd >= 0) {
        pmt__lines_read(fd, self->text, sizeof self->text, mount_line, &all);
        pmt__kept_close(&file);
    }
    if (all.seen) {
        return self->folder_length != 0 && access(self->folder, F_OK) == 0;
    }
    /* The mounts are hidden: where everybody mounts them. A container sees its own group there. */
    const char *mount = self->version == 1 ? MOUNTED_AT "/memory" : MOUNTED_AT;
    return self->version != 0
           && (folder_try(self, mount, self->path) || folder_try(self, mount, "/"));
}

/* --- reading ----------------------------------------------------------------------------------------------------------- */

/* A file of the group that `length` bytes of the folder name. */
static int
group_file(pmt__cgroup *self, pmt__kept *file, size_t length, const char *name)
{
    snprintf(self->name, sizeof self->name, "%.*s/%s", (int)length, self->folder, name);
    return pmt__kept_fd(file, self->name, O_RDONLY);
}

static int
own_file(pmt__cgroup *self, pmt__kept *file, const char *name)
{
    return group_file(self, file, self->folder_length, name);
}

/* The only line of a file. */
static size_t
text_read(int fd, char *text, size_t size)
{
    ssize_t n = fd < 0 ? -1 : pread(fd, text, size - 1, 0);
    n = n < 0 ? 0 : n;
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return (size_t)n;
}

static uint64_t
number_read(int fd)
{
    char text[64];
    return text_read(fd, text, sizeof text) == 0 ? PMT_UNKNOWN : pmt__figure(text);
}

static uint64_t
limit_read(int fd)
{
    char text[64];
    if (text_read(fd, text, sizeof text) == 0) {
        return PMT_UNKNOWN;
    }
    uint64_t limit = strcmp(text, "max") == 0 ? PMT_NO_LIMIT : pmt__figure(text);
    return limit != PMT_UNKNOWN && limit >= ENDLESS ? PMT_NO_LIMIT : limit;
}

/* The smaller limit; what is not known does not count. PMT_NO_LIMIT is less than PMT_UNKNOWN. */
static uint64_t
lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static const char *
limit_name(const pmt__cgroup *self)
{
    return self->version == 1 ? "memory.limit_in_bytes" : "memory.max";
}

/* Version 1 has nothing like it: its soft limit does not slow anybody down. */
static int
high_file(pmt__cgroup *self, pmt__kept *file, size_t length)
{
    return self->version == 1 ? -ENOENT : group_file(self, file, length, "memory.high");
}

/* The length of the next group up; 0: that was the highest one. */
static size_t
up(const pmt__cgroup *self, size_t length)
{
    if (length <= self->mount_length) {
        return 0;
    }
    do {
        length--;
    } while (length > self->mount_length && self->folder[length] != '/');
    return length;
}

/* Finds the limits: those of the group itself, and of the ones above it that have any. */
static void
limits_find(pmt__cgroup *self)
{
    self->limit_above = self->high_above = PMT_UNKNOWN;
    for (size_t length = self->folder_length; length != 0; length = up(self, length)) {
        pmt__kept limit = {0, 0, 0, 0}, high = {0, 0, 0, 0};
        uint64_t max = limit_read(group_file(self, &limit, length, limit_name(self)));
        uint64_t soft = limit_read(high_file(self, &high, length));
        int counts = self->limit_count == 0 || max < PMT_NO_LIMIT || soft < PMT_NO_LIMIT;
        if (counts && self->limit_count < PMT_CGROUP_LIMITS) {
            self->limits[self->limit_count].length = length;
            self->limits[self->limit_count].limit = limit;
            self->limits[self->limit_count++].high = high;
        } else {
            self->limit_above = lower(self->limit_above, max);
            self->high_above = lower(self->high_above, soft);
            pmt__kept_close(&limit);
            pmt__kept_close(&high);
        }
    }
}

static void
limits_read(pmt__cgroup *self)
{
    pmt__cgroup_figures *now = &self->now;
    now->limit = self->limit_above;
    now->high = self->high_above;
    for (size_t i = 0; i < self->limit_count; i++) {
        size_t length = self->limits[i].length;
        uint64_t limit =
            limit_read(group_file(self, &self->limits[i].limit, length, limit_name(self)));
        uint64_t high = limit_read(high_file(self, &self->limits[i].high, length));
        if (i == 0 && self->version == 1 && self->hierarchical != PMT_UNKNOWN) {
            now->limit = lower(limit, self->hierarchical); /* above it, a limit may not count */
            return;
        }
        now->limit = lower(now->limit, limit);
        now->high = lower(now->high, high);
    }
}

/* Of version 1, what is for the group and all below it comes behind what is for the group alone. */
static int
stat_line_1(void *context, char *line)
{
    pmt__cgroup *self = context;
    pmt__cgroup_figures *now = &self->now;
    pmt__figure_take(line, "rss", &now->anon);
    pmt__figure_take(line, "cache", &now->file);
    pmt__figure_take(line, "shmem", &now->shmem);
    pmt__figure_take(line, "inactive_file", &now->inactive_file);
    pmt__figure_take(line, "total_rss", &now->anon);
    pmt__figure_take(line, "total_cache", &now->file);
    pmt__figure_take(line, "total_shmem", &now->shmem);
    pmt__figure_take(line, "total_inactive_file", &now->inactive_file);
    pmt__figure_take(line, "hierarchical_memory_limit", &self->hierarchical);
    return 0;
}

static int
stat_line_2(void *context, char *line)
{
    pmt__cgroup_figures *now = &((pmt__cgroup *)context)->now;
    pmt__figure_take(line, "anon", &now->anon);
    pmt__figure_take(line, "file", &now->file);
    pmt__figure_take(line, "kernel", &now->kernel);
    pmt__figure_take(line, "shmem", &now->shmem);
    pmt__figure_take(line, "inactive_file", &now->inactive_file);
    return 0;
}

static void
stat_read(pmt__cgroup *self)
{
    pmt__cgroup_figures *now = &self->now;
    now->anon = now->file = now->inactive_file = now->kernel = now->shmem = PMT_UNKNOWN;
    self->hierarchical = PMT_UNKNOWN;
    int fd = own_file(self, &self->stat, "memory.stat");
    if (fd >= 0) {
        pmt__lines_read(fd, self->text, sizeof self->text,
                        self->version == 1 ? stat_line_1 : stat_line_2, self);
    }
    if (self->hierarchical != PMT_UNKNOWN && self->hierarchical >= ENDLESS) {
        self->hierarchical = PMT_NO_LIMIT;
    }
}

static int
event_line(void *context, char *line)
{
    pmt__cgroup_figures *now = context;
    pmt__figure_take(line, "oom", &now->ooms);
    pmt__figure_take(line, "oom_kill", &now->oom_kills);
    pmt__figure_take(line, "max", &now->limit_hits);
    pmt__figure_take(line, "high", &now->high_hits);
    return 0;
}

static int
oom_control_line(void *context, char *line)
{
    pmt__figure_take(line, "oom_kill", &((pmt__cgroup_figures *)context)->oom_kills);
    return 0;
}

static void
events_read(pmt__cgroup *self)
{
    pmt__cgroup_figures *now = &self->now;
    now->ooms = now->oom_kills = now->limit_hits = now->high_hits = PMT_UNKNOWN;
    if (self->version == 1) {
        now->limit_hits = number_read(own_file(self, &self->events, "memory.failcnt"));
    }
    int fd = self->version == 1 ? own_file(self, &self->oom_control, "memory.oom_control")
                                : own_file(self, &self->events, "memory.events");
    if (fd >= 0) {
        pmt__lines_read(fd, self->text, sizeof self->text,
                        self->version == 1 ? oom_control_line : event_line, now);
    }
}

static uint64_t
usage_read(pmt__cgroup *self)
{
    return number_read(own_file(self, &self->usage,
                                self->version == 1 ? "memory.usage_in_bytes" : "memory.current"));
}

/* Goes up to where memory is counted: in version 2, a group may leave that to the one above it. */
static void
counted_find(pmt__cgroup *self)
{
    size_t own = self->folder_length;
    while (self->version == 2 && usage_read(self) == PMT_UNKNOWN) {
        size_t length = up(self, self->folder_length);
        if (length == 0) { /* nobody counts */
            self->folder_length = own;
            pmt__kept_close(&self->usage);
            return;
        }
        self->folder_length = length;
        pmt__kept_close(&self->usage);
    }
}

void
pmt__cgroup_read(pmt__cgroup *self, int thorough)
{
    int saved = errno;
    if (thorough || !self->known) {
        int changed = membership_read(self);
        if (changed || !self->known) {
            self->known = 1;
            group_close(self);
            forget(&self->now);
            self->found = folder_find(self);
            if (self->found) {
                counted_find(self);
                limits_find(self);
                thorough = 1;
            }
        }
    }
    if (self->found) {
        self->now.usage = usage_read(self);
        if (thorough) {
            stat_read(self);
            limits_read(self);
        }
        events_read(self);
        if (self->version == 2) {
            snprintf(self->name, sizeof self->name, "%.*s/memory.pressure",
                     (int)self->folder_length, self->folder);
            pmt__psi_read(&self->now.psi, &self->pressure, self->name, self->text,
                          sizeof self->text);
        }
        if (self->now.usage == PMT_UNKNOWN && access(self->folder, F_OK) != 0) {
            group_close(self); /* it was removed */
            forget(&self->now);
            self->known = 0;
        }
    }
    errno = saved;
}
