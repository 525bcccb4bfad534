/* The memory of cgroups, read from trees that look like those of hosts and containers, and from broken ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/pressure.h"

#define MIB ((uint64_t)1 << 20)
#define V2_MOUNT "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNTS                                                                          \
    "31 24 0:27 / /sys/fs/cgroup ro shared:4 - tmpfs tmpfs rw,mode=755\n"                  \
    "32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n" \
    "33 31 0:29 / /sys/fs/cgroup/memory rw shared:6 - cgroup cgroup rw,memory\n"           \
    "34 31 0:30 / /sys/fs/cgroup/unified rw shared:7 - cgroup2 cgroup2 rw\n"

static char folder[] = "/tmp/test_cgroup_XXXXXX", root[64], proc[64];
static pmt__pressure_source source;

static void
put(const char *name, const char *text)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_true(n > 0 && (size_t)n < sizeof path);
    for (char *slash = path + strlen(folder) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    if (text != NULL) {
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(text, file);
        fclose(file);
    }
}

static int
remove_one(const char *path, const struct stat *found, int type, struct FTW *walk)
{
    (void)found;
    (void)type;
    (void)walk;
    return remove(path);
}

static void
tree_remove(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int
setup(void **state)
{
    (void)state;
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    snprintf(root, sizeof root, "%s/sys", folder);
    snprintf(proc, sizeof proc, "%s/proc", folder);
    put("sys/", NULL);
    put("proc/self/", NULL);
    pmt__pressure_source_init(&source, root, proc);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    pmt__pressure_source_close(&source);
    tree_remove("");
    return 0;
}

static const pmt__cgroup_figures *
read_all(void)
{
    pmt__pressure_source_read(&source, 1);
    return &source.cgroup.now;
}

/* A group of version 2 with these files. */
static void
put_group(const char *name, const char *current, const char *max, const char *high)
{
    static const char *const files[] = {"memory.current", "memory.max", "memory.high"};
    const char *const texts[] = {current, max, high};
    for (size_t i = 0; i < 3; i++) {
        char path[512];
        snprintf(path, sizeof path, "sys%s/%s", name, files[i]);
        if (texts[i] != NULL) {
            put(path, texts[i]);
        }
    }
}

static void
put_pod(void)
{
    put("proc/self/cgroup", "0::/kubepods.slice/pod1/ctr1\n");
    put("proc/self/mountinfo", "24 1 0:22 / / rw - overlay overlay rw,lowerdir=/a:/b\n" V2_MOUNT);
    put("sys/cgroup.controllers", "cpu memory\n");
    put_group("/kubepods.slice", "900000000\n", "max\n", "max\n");
    put_group("/kubepods.slice/pod1", "600000000\n", "536870912\n", "max\n");
    put_group("/kubepods.slice/pod1/ctr1", "471859200\n", "max\n", "419430400\n");
    put("sys/kubepods.slice/pod1/ctr1/memory.events",
        "low 0\nhigh 12\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n");
    put("sys/kubepods.slice/pod1/ctr1/memory.stat",
        "anon 314572800\nfile 104857600\nkernel 20971520\nkernel_stack 65536\nshmem 4096\n"
        "file_mapped 1\nfile_dirty 2\ninactive_anon 7\nactive_anon 8\ninactive_file 52428800\n");
    put("sys/kubepods.slice/pod1/ctr1/memory.pressure",
        "some avg10=4.10 avg60=1.00 avg300=0.20 total=123456\n"
        "full avg10=0.05 avg60=0.00 avg300=0.00 total=2345\n");
}

static void
test_version_2_nested(void **state)
{
    (void)state;
    put_pod();
    const pmt__cgroup_figures *now = read_all();
    assert_int_equal(source.cgroup.version, 2);
    assert_string_equal(source.cgroup.path, "/kubepods.slice/pod1/ctr1");
    assert_int_equal(now->usage, 450 * MIB);
    assert_int_equal(now->limit, 512 * MIB); /* of the pod */
    assert_int_equal(now->high, 400 * MIB);
    assert_int_equal(now->ooms, 2);
    assert_int_equal(now->oom_kills, 1);
    assert_int_equal(now->limit_hits, 3);
    assert_int_equal(now->high_hits, 12);
    assert_int_equal(now->anon, 300 * MIB);
    assert_int_equal(now->file, 100 * MIB);
    assert_int_equal(now->inactive_file, 50 * MIB);
    assert_int_equal(now->kernel, 20 * MIB);
    assert_int_equal(now->shmem, 4096);
    assert_int_equal(source.stalls_of, PMT_PSI_OF_CGROUP);
    assert_int_equal(source.stalls.some_us, 123456);
    assert_int_equal(source.stalls.full_us, 2345);
    assert_int_equal(source.stalls.some_avg10, 410);
    assert_int_equal(source.stalls.full_avg10, 5);
}

static void
test_what_is_read_each_time(void **state)
{
    (void)state;
    put_pod();
    read_all();
    put_group("/kubepods.slice/pod1/ctr1", "1\n", "268435456\n", "max\n");
    put("sys/kubepods.slice/pod1/ctr1/memory.events", "high 12\nmax 4\noom 2\noom_kill 2\n");
    put("sys/kubepods.slice/pod1/ctr1/memory.stat", "anon 5\n");
    pmt__pressure_source_read(&source, 0);
    const pmt__cgroup_figures *now = &source.cgroup.now;
    assert_int_equal(now->usage, 1);
    assert_int_equal(now->limit_hits, 4);
    assert_int_equal(now->oom_kills, 2);
    assert_int_equal(now->limit, 512 * MIB);
    assert_int_equal(now->anon, 300 * MIB);
    read_all();
    assert_int_equal(now->limit, 256 * MIB);
    assert_int_equal(now->high, PMT_NO_LIMIT);
    assert_int_equal(now->anon, 5);
    assert_int_equal(now->inactive_file, PMT_UNKNOWN);
}

static void
test_container_with_a_namespace(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/\n");
    put("proc/self/mountinfo", V2_MOUNT);
    put_group("", "104857600\n", "268435456\n", "max\n");
    const pmt__cgroup_figures *now = read_all();
    assert_int_equal(source.cgroup.version, 2);
    assert_int_equal(now->usage, 100 * MIB);
    assert_int_equal(now->limit, 256 * MIB);
    assert_int_equal(now->high, PMT_NO_LIMIT);
    assert_int_equal(now->oom_kills, PMT_UNKNOWN);
}

static void
put_v1(const char *name, const char *usage, const char *limit)
{
    char path[512];
    snprintf(path, sizeof path, "sys/memory%s/memory.usage_in_bytes", name);
    put(path, usage);
    snprintf(path, sizeof path, "sys/memory%s/memory.limit_in_bytes", name);
    put(path, limit);
}

static const char v1_stat[] =
    "cache 1\nrss 2\nshmem 3\ninactive_file 4\nhierarchical_memory_limit 402653184\n"
    "hierarchical_memsw_limit 9223372036854771712\ntotal_cache 104857600\ntotal_rss 209715200\n"
    "total_rss_huge 9\ntotal_shmem 8192\ntotal_inactive_file 52428800\n";

static void
test_version_1(void **state)
{
    (void)state;
    put("proc/self/cgroup", "12:pids:/a\n5:cpu,cpuacct:/other\n4:hugetlb,memory:/a/b\n0::/a\n");
    put("proc/self/mountinfo", V1_MOUNTS);
    put_v1("", "999999999\n", "9223372036854771712\n");
    put_v1("/a", "500000000\n", "536870912\n");
    put_v1("/a/b", "314572800\n", "9223372036854771712\n");
    put("sys/memory/a/b/memory.failcnt", "17\n");
    put("sys/memory/a/b/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
    const pmt__cgroup_figures *now = read_all();
    assert_int_equal(source.cgroup.version, 1); /* hybrid: memory is in version 1 */
    assert_string_equal(source.cgroup.path, "/a/b");
    assert_int_equal(now->usage, 300 * MIB);
    assert_int_equal(now->limit, 512 * MIB);
    assert_int_equal(now->high, PMT_UNKNOWN);
    assert_int_equal(now->limit_hits, 17);
    assert_int_equal(now->oom_kills, 2);
    assert_int_equal(now->ooms, PMT_UNKNOWN);
    put("sys/memory/a/b/memory.stat", v1_stat);
    pmt__pressure_source_close(&source); /* what was not there is not looked for again and again */
    read_all();
    assert_int_equal(now->limit, 384 * MIB);
    assert_int_equal(now->anon, 200 * MIB);
    assert_int_equal(now->file, 100 * MIB);
    assert_int_equal(now->inactive_file, 50 * MIB);
    assert_int_equal(now->shmem, 8192);
    assert_int_equal(now->kernel, PMT_UNKNOWN);
}

/* No namespace: the path is the host's, and what is mounted begins at the container's group. */
static void
test_container_of_version_1(void **state)
{
    (void)state;
    put("proc/self/cgroup", "4:memory:/docker/0123abc\n");
    put("proc/self/mountinfo",
        "33 31 0:29 /docker/0123abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put_v1("", "104857600\n", "268435456\n");
    const pmt__cgroup_figures *now = read_all();
    assert_int_equal(now->usage, 100 * MIB);
    assert_int_equal(now->limit, 256 * MIB);
    /* A group of its own below that. */
    put("proc/self/cgroup", "4:memory:/docker/0123abc/job\n");
    put_v1("/job", "52428800\n", "9223372036854771712\n");
    read_all();
    assert_int_equal(now->usage, 50 * MIB);
    assert_int_equal(now->limit, 256 * MIB);
    /* One that is not below it. */
    put("proc/self/cgroup", "4:memory:/docker/0123abcd\n");
    read_all();
    assert_int_equal(source.cgroup.version, 1);
    assert_int_equal(now->usage, PMT_UNKNOWN);
    assert_int_equal(now->limit, PMT_UNKNOWN);
}

static void
test_mounts_that_cannot_be_read(void **state)
{
    (void)state;
    put("proc/self/cgroup", "4:memory:/docker/0123abc\n");
    put_v1("", "104857600\n", "268435456\n");
    const pmt__cgroup_figures *now = read_all();
    assert_int_equal(now->usage, 100 * MIB);
    assert_int_equal(now->limit, 256 * MIB);
}

static void
test_a_mount_above_the_namespace(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/\n");
    put("proc/self/mountinfo", "30 24 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put_group("", "104857600\n", "268435456\n", "max\n");
    assert_int_equal(read_all()->usage, PMT_UNKNOWN); /* not ours, but the host's */
    assert_int_equal(source.cgroup.version, 2);
}

static void
test_a_name_with_blanks(void **state)
{
    (void)state;
    char path[256], line[512];
    snprintf(path, sizeof path, "%s/my groups", folder);
    put("my groups/x y/memory.current", "77\n");
    put("proc/self/cgroup", "0::/x y\n");
    snprintf(line, sizeof line, "30 24 0:26 / %s/my\\040groups rw - cgroup2 none rw\n", folder);
    put("proc/self/mountinfo", line);
    assert_int_equal(read_all()->usage, 77);
}

static void
test_missing_controllers(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/user/app\n");
    put("proc/self/mountinfo", V2_MOUNT);
    put("sys/user/app/cgroup.procs", "1\n");
    put_group("/user", "1048576\n", "2097152\n", "max\n");
    const pmt__cgroup_figures *now = read_all();
    assert_int_equal(now->usage, MIB); /* counted in the group above */
    assert_int_equal(now->limit, 2 * MIB);
    assert_int_equal(now->anon, PMT_UNKNOWN);

    pmt__pressure_source_close(&source);
    put("proc/self/cgroup", "0::/bare\n");
    put("sys/bare/cgroup.procs", "1\n");
    read_all(); /* nobody counts */
    assert_int_equal(source.cgroup.version, 2);
    assert_int_equal(now->usage, PMT_UNKNOWN);
    assert_int_equal(now->limit, PMT_UNKNOWN);

    pmt__pressure_source_close(&source);
    put("proc/self/cgroup", "3:cpuset:/\n2:cpu:/\n");
    read_all();
    assert_int_equal(source.cgroup.version, 0);
    assert_int_equal(now->usage, PMT_UNKNOWN);
}

static void
test_a_group_that_goes(void **state)
{
    (void)state;
    put_pod();
    const pmt__cgroup_figures *now = read_all();
    pmt__kept_close(&source.cgroup.usage); /* as a group's file fails when it is gone */
    tree_remove("sys/kubepods.slice/pod1/ctr1");
    pmt__pressure_source_read(&source, 0);
    assert_int_equal(now->usage, PMT_UNKNOWN);
    assert_int_equal(now->limit, PMT_UNKNOWN);
    put("proc/self/cgroup", "0::/kubepods.slice\n");
    pmt__pressure_source_read(&source, 0);
    assert_int_equal(now->usage, 900000000);
    assert_int_equal(now->limit, PMT_NO_LIMIT);
}

static void
test_a_process_that_is_moved(void **state)
{
    (void)state;
    put_pod();
    const pmt__cgroup_figures *now = read_all();
    put("proc/self/cgroup", "0::/kubepods.slice/pod1\n");
    pmt__pressure_source_read(&source, 0);
    assert_int_equal(now->usage, 450 * MIB);
    read_all();
    assert_int_equal(now->usage, 600000000);
    assert_int_equal(now->oom_kills, PMT_UNKNOWN);
    assert_int_equal(now->high, PMT_NO_LIMIT);
}

static void
test_more_limits_than_are_kept(void **state)
{
    (void)state;
    char path[512] = "", line[600];
    for (int i = 0; i < 20; i++) {
        char limit[32];
        strcat(path, "/g");
        snprintf(limit, sizeof limit, "%d\n", 1000 + i);
        put_group(path, "5\n", limit, limit);
    }
    snprintf(line, sizeof line, "0::%s\n", path);
    put("proc/self/cgroup", line);
    put("proc/self/mountinfo", V2_MOUNT);
    assert_int_equal(read_all()->limit, 1000);
    assert_int_equal(source.cgroup.now.high, 1000);
    assert_int_equal(source.cgroup.limit_count, PMT_CGROUP_LIMITS);
}

static void
test_nothing_at_all(void **state)
{
    (void)state;
    const pmt__cgroup_figures *now = read_all();
    assert_int_equal(source.cgroup.version, 0);
    const uint64_t *figures = (const uint64_t *)(const void *)now;
    for (size_t i = 0; i < sizeof *now / sizeof *figures; i++) {
        assert_int_equal(figures[i], PMT_UNKNOWN);
    }
    assert_int_equal(source.stalls_of, PMT_UNKNOWN);
    assert_int_equal(source.stalls.some_us, PMT_UNKNOWN);
    assert_int_equal(source.host_available, PMT_UNKNOWN);
    assert_int_equal(source.host_total, PMT_UNKNOWN);
    assert_int_equal(source.host_swap_free, PMT_UNKNOWN);
    assert_int_equal(source.swap, PMT_UNKNOWN);
    assert_int_equal(source.peak_rss, PMT_UNKNOWN);
    assert_false(source.oom_score_known);
}

static void
test_garbage(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t number, limit;
    } texts[] = {
        {"", PMT_UNKNOWN, PMT_UNKNOWN},
        {"\n", PMT_UNKNOWN, PMT_UNKNOWN},
        {"max\n", PMT_UNKNOWN, PMT_NO_LIMIT},
        {"maximum\n", PMT_UNKNOWN, PMT_UNKNOWN},
        {"-1\n", PMT_UNKNOWN, PMT_UNKNOWN},
        {"12x\n", PMT_UNKNOWN, PMT_UNKNOWN},
        {"0x10\n", PMT_UNKNOWN, PMT_UNKNOWN},
        {"0\n", 0, 0},
        {"0", 0, 0},
        {"7", 7, 7},
        {"4611686018427387903\n", 4611686018427387903u, 4611686018427387903u},
        {"4611686018427387904\n", 4611686018427387904u, PMT_NO_LIMIT},
        {"9223372036854771712\n", 9223372036854771712u, PMT_NO_LIMIT},
        {"18446744073709551613\n", 18446744073709551613u, PMT_NO_LIMIT},
        {"18446744073709551614\n", PMT_UNKNOWN, PMT_UNKNOWN},
        {"18446744073709551615\n", PMT_UNKNOWN, PMT_UNKNOWN},
        {"99999999999999999999999999\n", PMT_UNKNOWN, PMT_UNKNOWN},
        {"\xff\xfe\x01\n", PMT_UNKNOWN, PMT_UNKNOWN},
    };
    put("proc/self/cgroup", "::\n:\n\nmemory\nx:memory\n9:memory:relative\n0::/a\n");
    put("proc/self/mountinfo", "\n-\n - cgroup2\n1 2 - cgroup2\n - cgroup\n" V2_MOUNT);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char events[200];
        put_group("/a", texts[i].text, texts[i].text, texts[i].text);
        snprintf(events, sizeof events, "maximum 5\nmax\nmax %s\noom_kill: %s\nhigh\n",
                 texts[i].text, texts[i].text);
        put("sys/a/memory.events", events);
        const pmt__cgroup_figures *now = read_all();
        assert_int_equal(now->usage, texts[i].number);
        assert_int_equal(now->limit, texts[i].limit);
        assert_int_equal(now->high, texts[i].limit);
        assert_int_equal(now->limit_hits, texts[i].number);
        assert_int_equal(now->high_hits, PMT_UNKNOWN);
    }
}

static void
test_long_lines(void **state)
{
    (void)state;
    static char text[40000];
    size_t n = (size_t)sprintf(text, "Name:\tx\nGroups:\t");
    while (n < sizeof text - 200) {
        n += (size_t)sprintf(text + n, "%zu ", n);
    }
    sprintf(text + n, "\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\nVmSwap:\t       8 kB\nThreads:\t1");
    put("proc/self/status", text);
    put("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable:     500 kB\n"
                        "SwapTotal:  77 kB\nSwapFree:     18014398509481984 kB\n");
    put("proc/self/oom_score_adj", "-998\n");
    put("proc/pressure/memory", "some avg10=nan avg60=0.00 avg300=0.00 total=9\nfull avg10=1.5\n");
    read_all();
    assert_int_equal(source.peak_rss, 2 * MIB);
    assert_int_equal(source.swap, 8192);
    assert_int_equal(source.host_total, 1000 * 1024);
    assert_int_equal(source.host_available, 500 * 1024);
    assert_int_equal(source.host_swap_free, PMT_UNKNOWN); /* more than there can be */
    assert_int_equal(source.oom_score_adj, -998);
    assert_int_equal(source.stalls_of, PMT_PSI_OF_HOST);
    assert_int_equal(source.stalls.some_us, 9);
    assert_int_equal(source.stalls.some_avg10, PMT_UNKNOWN);
    assert_int_equal(source.stalls.full_avg10, PMT_UNKNOWN);
    assert_int_equal(source.stalls.full_us, PMT_UNKNOWN);
}

static size_t
count_files(void)
{
    DIR *list = opendir("/proc/self/fd");
    size_t count = 0;
    while (readdir(list) != NULL) {
        count++;
    }
    closedir(list);
    return count;
}

static void
test_descriptors(void **state)
{
    (void)state;
    size_t before = count_files();
    put_pod();
    read_all();
    size_t open = count_files();
    for (int i = 0; i < 10; i++) {
        read_all();
    }
    assert_int_equal(count_files(), open);
    assert_true(open - before <= 16);
    assert_true(source.cgroup.usage.fd > 100);
    pmt__pressure_source_close(&source);
    assert_int_equal(count_files(), before);

    /* A descriptor that the program has closed and opened again is its own now. */
    read_all();
    int fd = source.cgroup.usage.fd;
    char path[256];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", folder);
    FILE *other = fopen(path, "r");
    assert_int_equal(dup2(fileno(other), fd), fd);
    assert_int_equal(read_all()->usage, 450 * MIB);
    pmt__pressure_source_close(&source);
    assert_int_equal(close(fd), 0);
    fclose(other);
}

static void
test_this_process(void **state)
{
    (void)state;
    pmt__pressure_source_init(&source, "/sys/fs/cgroup", "/proc");
    read_all();
    assert_in_range(source.host_total, 64 * MIB, (uint64_t)1 << 50);
    assert_in_range(source.host_available, MIB, source.host_total);
    assert_in_range(source.peak_rss, MIB / 4, source.host_total);
    assert_true(source.oom_score_known);
    if (source.cgroup.now.usage != PMT_UNKNOWN) {
        assert_in_range(source.cgroup.now.usage, 4096, source.host_total);
        assert_true(source.cgroup.version == 1 || source.cgroup.version == 2);
    }
    print_message("# version %d, usage %" PRIu64 ", limit %" PRIu64 "\n", source.cgroup.version,
                  source.cgroup.now.usage, source.cgroup.now.limit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_version_2_nested, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_read_each_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_container_with_a_namespace, setup, teardown),
        cmocka_unit_test_setup_teardown(test_version_1, setup, teardown),
        cmocka_unit_test_setup_teardown(test_container_of_version_1, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mounts_that_cannot_be_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_mount_above_the_namespace, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_name_with_blanks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_controllers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_group_that_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_process_that_is_moved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_limits_than_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_at_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_this_process, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
