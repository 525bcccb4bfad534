/* The stack tree, the code objects below it and their names.

   A node is keyed by (parent, code id, offset), which stays true for ever; the hot path compares the instruction's
   address, which is true only while the code object lives. When a code object dies, its nodes get addresses that match
   nothing; when an equal one appears, they get the new addresses. Equal means: same file, name, first line, location table
   and bytecode size, by a 64-bit fingerprint. */
#include "record/tables.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/varint.h"
#include "platform/platform.h"
#include "record/shadow.h"

#define INLINE_CHILDREN 8 /* in the list of a node before the hash is asked */

/* --- growing hash tables of ids ------------------------------------------------------------------------------------- */

static uint32_t *
map_ids(uint32_t count)
{
    uint32_t *ids = pmt__pages_map((size_t)count * sizeof(uint32_t));
    if (ids != NULL) {
        pmt__t.table_bytes += (uint64_t)count * sizeof(uint32_t);
    }
    return ids;
}

static void
unmap_ids(uint32_t *ids, uint32_t count)
{
    pmt__pages_unmap(ids, (size_t)count * sizeof(uint32_t));
    pmt__t.table_bytes -= (uint64_t)count * sizeof(uint32_t);
}

static uint32_t
node_offset(const pmt__node *node)
{
    if (node->instr & PMT_INSTR_DEAD) {
        return (uint32_t)(node->instr & 0xffffffffu);
    }
    return (uint32_t)(node->instr - pmt__t.codes[node->code].start);
}

static uint32_t
node_hash(uint32_t parent, uint32_t code, uint32_t offset)
{
    uint64_t key = ((uint64_t)parent << 32 | code) * PMT_MIX;
    key ^= key >> 29;
    key = (key ^ offset) * PMT_MIX;
    return (uint32_t)(key >> 32);
}

static int
node_hash_grow(void)
{
    uint32_t mask = pmt__t.node_hash_mask * 2 + 1;
    uint32_t *ids = map_ids(mask + 1);
    if (ids == NULL) {
        return -1;
    }
    for (uint32_t i = 0; i <= pmt__t.node_hash_mask; i++) {
        uint32_t id = pmt__t.node_hash[i];
        if (id == 0) {
            continue;
        }
        const pmt__node *node = &pmt__t.nodes[id];
        uint32_t at = node_hash(node->parent, node->code, node_offset(node)) & mask;
        while (ids[at] != 0) {
            at = (at + 1) & mask;
        }
        ids[at] = id;
    }
    unmap_ids(pmt__t.node_hash, pmt__t.node_hash_mask + 1);
    pmt__t.node_hash = ids;
    pmt__t.node_hash_mask = mask;
    return 0;
}

/* --- strings ----------------------------------------------------------------------------------------------------------- */

static uint8_t *
utf8_put(uint8_t *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (uint8_t)c;
    } else if (c < 0x800) {
        *out++ = (uint8_t)(0xc0 | c >> 6);
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (uint8_t)(0xe0 | c >> 12);
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    } else {
        *out++ = (uint8_t)(0xf0 | c >> 18);
        *out++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    }
    return out;
}

static uint32_t
text_at(const pmt__text *text, size_t i)
{
    switch (text->width) {
    case 1:
        return ((const uint8_t *)text->data)[i];
    case 2:
        return ((const uint16_t *)text->data)[i];
    default:
        return ((const uint32_t *)text->data)[i] & 0x1fffff;
    }
}

static uint64_t
text_hash(const pmt__text *text)
{
    return XXH3_64bits_withSeed(text->data, text->length * text->width, text->width);
}

#define TEXT_MAX 65536 /* code points; longer names are cut */

static void
string_hash_insert(uint64_t *table, uint32_t mask, uint64_t hash, uint32_t id)
{
    uint32_t at = (uint32_t)hash & mask;
    while (table[2 * at + 1] != 0) {
        at = (at + 1) & mask;
    }
    table[2 * at] = hash;
    table[2 * at + 1] = id;
}

static int
string_hash_grow(void)
{
    uint32_t mask = pmt__t.string_hash_mask * 2 + 1;
    uint64_t *table = pmt__pages_map((size_t)(mask + 1) * 16);
    if (table == NULL) {
        return -1;
    }
    for (uint32_t i = 0; i <= pmt__t.string_hash_mask; i++) {
        if (pmt__t.string_hash[2 * i + 1] != 0) {
            string_hash_insert(table, mask, pmt__t.string_hash[2 * i],
                               (uint32_t)pmt__t.string_hash[2 * i + 1]);
        }
    }
    pmt__pages_unmap(pmt__t.string_hash, (size_t)(pmt__t.string_hash_mask + 1) * 16);
    pmt__t.table_bytes += (uint64_t)(mask - pmt__t.string_hash_mask) * 16;
    pmt__t.string_hash = table;
    pmt__t.string_hash_mask = mask;
    return 0;
}

/* The id of a string, by its 64-bit hash; its bytes go to the capture with the next cut and are then forgotten. 0 when
   memory ran out. */
uint32_t
pmt__string_intern_nopy(const pmt__text *text)
{
    pmt__text cut = *text;
    if (cut.length > TEXT_MAX) {
        cut.length = TEXT_MAX;
    }
    uint64_t hash = text_hash(&cut);
    for (uint32_t at = (uint32_t)hash & pmt__t.string_hash_mask;
         pmt__t.string_hash[2 * at + 1] != 0; at = (at + 1) & pmt__t.string_hash_mask) {
        if (pmt__t.string_hash[2 * at] == hash) {
            return (uint32_t)pmt__t.string_hash[2 * at + 1];
        }
    }
    size_t room = cut.length * 4 + 2 * PMT_VARINT_MAX;
    uint8_t *out = pmt__buffer_reserve(&pmt__t.new_strings, room);
    if (out == NULL
        || (pmt__t.string_count * 2 > pmt__t.string_hash_mask && string_hash_grow() < 0)) {
        pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT]++;
        return 0;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < cut.length; i++) {
        uint32_t c = text_at(&cut, i);
        bytes += c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    }
    uint8_t *end = pmt__varint_put(out, bytes);
    for (size_t i = 0; i < cut.length; i++) {
        end = utf8_put(end, text_at(&cut, i));
    }
    pmt__t.new_strings.len += (size_t)(end - out);
    uint32_t id = ++pmt__t.string_count;
    string_hash_insert(pmt__t.string_hash, pmt__t.string_hash_mask, hash, id);
    return id;
}

/* --- code objects ------------------------------------------------------------------------------------------------------ */

static uint32_t
code_hash(const void *object)
{
    return (uint32_t)(((uintptr_t)object >> 4) * PMT_MIX >> 32);
}

static void
code_hash_insert(uint32_t *ids, uint32_t mask, uint32_t id)
{
    uint32_t at = code_hash(pmt__t.codes[id].object) & mask;
    while (ids[at] != 0) {
        at = (at + 1) & mask;
    }
    ids[at] = id;
}

static uint32_t
code_hash_find(const void *object)
{
    for (uint32_t at = code_hash(object) & pmt__t.code_hash_mask; pmt__t.code_hash[at] != 0;
         at = (at + 1) & pmt__t.code_hash_mask) {
        uint32_t id = pmt__t.code_hash[at];
        if (pmt__t.codes[id].object == object) {
            return at;
        }
    }
    return UINT32_MAX;
}

/* Open addressing without tombstones: what follows the hole moves up. */
static void
code_hash_remove(uint32_t hole)
{
    uint32_t mask = pmt__t.code_hash_mask;
    uint32_t *ids = pmt__t.code_hash;
    for (uint32_t at = (hole + 1) & mask; ids[at] != 0; at = (at + 1) & mask) {
        uint32_t home = code_hash(pmt__t.codes[ids[at]].object) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            ids[hole] = ids[at];
            hole = at;
        }
    }
    ids[hole] = 0;
}

static int
code_hashes_grow(void)
{
    uint32_t mask = pmt__t.code_hash_mask * 2 + 1;
    uint32_t *alive = map_ids(mask + 1);
    uint32_t *dead = map_ids(mask + 1);
    if (alive == NULL || dead == NULL) {
        return -1;
    }
    for (uint32_t id = 1; id < pmt__t.code_count; id++) {
        if (pmt__t.codes[id].object != NULL) {
            code_hash_insert(alive, mask, id);
        } else {
            uint32_t *head = &dead[pmt__t.codes[id].fingerprint & mask];
            pmt__t.codes[id].next_dead = *head;
            *head = id;
        }
    }
    unmap_ids(pmt__t.code_hash, pmt__t.code_hash_mask + 1);
    unmap_ids(pmt__t.dead_hash, pmt__t.dead_hash_mask + 1);
    pmt__t.code_hash = alive;
    pmt__t.dead_hash = dead;
    pmt__t.code_hash_mask = pmt__t.dead_hash_mask = mask;
    return 0;
}

static uint64_t
fingerprint(const pmt__code_facts *facts)
{
    uint64_t parts[5] = {
        text_hash(&facts->file),
        text_hash(&facts->name),
        (uint64_t)(uint32_t)facts->first_line,
        facts->size,
        XXH3_64bits(facts->line_table, facts->line_table_size),
    };
    return XXH3_64bits(parts, sizeof parts);
}

static uint32_t
code_revive(uint64_t print)
{
    uint32_t *link = &pmt__t.dead_hash[print & pmt__t.dead_hash_mask];
    for (; *link != 0; link = &pmt__t.codes[*link].next_dead) {
        uint32_t id = *link;
        if (pmt__t.codes[id].fingerprint == print) {
            *link = pmt__t.codes[id].next_dead;
            return id;
        }
    }
    return 0;
}

static void
code_define(const pmt__code_facts *facts)
{
    uint32_t file = pmt__string_intern_nopy(&facts->file);
    uint32_t name = pmt__string_intern_nopy(&facts->name);
    pmt__buffer *out = &pmt__t.new_codes;
    pmt__buffer_put_varint(out, file);
    pmt__buffer_put_varint(out, name);
    pmt__buffer_put_varint(out, 0); /* module: the reader derives it */
    pmt__buffer_put_zigzag(out, facts->first_line);
    pmt__buffer_put_varint(out, 0);
    pmt__buffer_put_varint(out, facts->size);
    pmt__buffer_put_text(out, (const char *)facts->line_table, facts->line_table_size);
}

/* The id of a living code object. 0 at the memory limit. */
static uint32_t
code_get(const void *object)
{
    uint32_t at = code_hash_find(object);
    if (at != UINT32_MAX) {
        return pmt__t.code_hash[at];
    }
    pmt__code_facts facts;
    pmt__t.source->code_describe_nopy(object, &facts);
    uint64_t print = fingerprint(&facts);
    if (pmt__t.code_count * 2 > pmt__t.code_hash_mask && code_hashes_grow() < 0) {
        return 0;
    }
    uint32_t id = code_revive(print);
    if (id == 0) {
        if (pmt__t.code_count >= pmt__t.code_limit) {
            return 0;
        }
        id = pmt__t.code_count++;
        pmt__t.codes[id].nodes = 0;
        pmt__t.codes[id].seen_before_begin = 0;
        code_define(&facts);
    }
    pmt__code *code = &pmt__t.codes[id];
    code->object = object;
    code->start = facts.start;
    code->size = facts.size;
    code->traceable = facts.traceable;
    code->fingerprint = print;
    code->next_dead = 0;
    for (uint32_t node = code->nodes; node != 0; node = pmt__t.node_next[node]) {
        pmt__t.nodes[node].instr = code->start + (pmt__t.nodes[node].instr & 0xffffffffu);
    }
    code_hash_insert(pmt__t.code_hash, pmt__t.code_hash_mask, id);
    pmt__shadow_watch(object); /* its free must tell us */
    return id;
}

int
pmt__code_known(const void *object)
{
    return code_hash_find(object) != UINT32_MAX;
}

/* Forgets what is remembered by the addresses of one node: the child cache, and the leaf cache for every size that was seen. */
static void
node_forget(uint32_t id)
{
    const pmt__node *node = &pmt__t.nodes[id];
    pmt__child *child = &pmt__t.children[pmt__child_index(node->instr, node->parent)];
    if (child->instr == node->instr) {
        child->instr = 0;
    }
    for (uint32_t site = node->site; site != 0; site = pmt__t.sites[site].next) {
        pmt__leaf *leaf =
            &pmt__t.leaves[pmt__leaf_index(node->instr, node->parent, pmt__t.sites[site].size)];
        if (leaf->instr == node->instr) {
            leaf->instr = 0;
        }
    }
}

/* Cached stacks are cut off below the first frame that ran this code: it runs no longer. */
static void
stacks_forget(uint64_t start, uint32_t size)
{
    for (pmt__thread *t = pmt__t.threads; t != NULL; t = t->next) {
        for (int32_t at = 0; at < t->depth; at++) {
            if (t->link[at].instr - start < (uint64_t)size + 2) {
                t->depth = at;
                t->top = NULL;
            }
        }
    }
}

void
pmt__code_died_nopy(const void *object)
{
    enum {
        ONE_BY_ONE = 64
    }; /* nodes; for more it is cheaper to clear the caches whole */
    uint32_t at = code_hash_find(object);
    if (at == UINT32_MAX) {
        return;
    }
    uint32_t id = pmt__t.code_hash[at];
    code_hash_remove(at);
    pmt__code *code = &pmt__t.codes[id];
    code->object = NULL;
    uint32_t count = 0;
    for (uint32_t node = code->nodes; node != 0; node = pmt__t.node_next[node]) {
        if (++count <= ONE_BY_ONE) {
            node_forget(node);
        }
        pmt__t.nodes[node].instr =
            PMT_INSTR_DEAD | (uint32_t)(pmt__t.nodes[node].instr - code->start);
    }
    if (count > ONE_BY_ONE || code->seen_before_begin) {
        pmt__caches_clear_nopy();
    }
    stacks_forget(code->start - 2,
                  code->size); /* 3.11 and 3.12 begin one unit before the first instruction */
    code->seen_before_begin = 0;
    uint32_t *head = &pmt__t.dead_hash[code->fingerprint & pmt__t.dead_hash_mask];
    code->next_dead = *head;
    *head = id;
}

void
pmt__caches_clear_nopy(void)
{
    memset(pmt__t.leaves, 0, sizeof(pmt__leaf) << PMT_LEAF_BITS);
    memset(pmt__t.children, 0, sizeof(pmt__child) << PMT_CHILD_BITS);
}

/* --- nodes --------------------------------------------------------------------------------------------------------------- */

static uint32_t
node_append(uint32_t parent, uint64_t instr, uint32_t code, int in_list)
{
    uint32_t id = pmt__t.node_count++;
    pmt__node *node = &pmt__t.nodes[id];
    node->instr = instr;
    node->parent = parent;
    node->code = code;
    pmt__t.node_next[id] = pmt__t.codes[code].nodes;
    pmt__t.codes[code].nodes = id;
    if (in_list) {
        /* Children are made in program order: keep that order, recursive programs then walk the array forwards. */
        uint32_t *link = &pmt__t.nodes[parent].first;
        while (*link != 0) {
            link = &pmt__t.nodes[*link].next;
        }
        *link = id;
    }
    return id;
}

uint32_t
pmt__node_plain_nopy(uint32_t parent, uint64_t instr, const void *object, int generator)
{
    pmt__tables_room_nopy();
    pmt__node *above = &pmt__t.nodes[parent];
    int children = 0;
    for (uint32_t id = above->first; id != 0; id = pmt__t.nodes[id].next, children++) {
        if (pmt__t.nodes[id].instr == instr) {
            return above->mru = id;
        }
    }
    uint32_t code = code_get(object);
    if (code == 0) {
        pmt__t.counters[PMT_COUNTER_FOLDED_STACKS]++;
        return PMT_NODE_FOLDED;
    }
    /* A frame that has not reached its first traceable instruction does not count as running: what it allocates (cells, a
       generator) is its caller's, as in tracemalloc and in tracebacks. */
    uint64_t start = pmt__t.codes[code].start;
    if (instr < start + pmt__t.codes[code].traceable && !generator) {
        pmt__t.codes[code].seen_before_begin =
            1; /* the leaf cache knows the address, no node does */
        return parent;
    }
    uint64_t offset64 = instr - start;
    uint32_t offset = offset64 <= pmt__t.codes[code].size ? (uint32_t)offset64 : 0;
    /* Known under another address? The list holds the first eight children, the hash the others. */
    for (uint32_t id = above->first; id != 0; id = pmt__t.nodes[id].next) {
        if (pmt__t.nodes[id].code == code && node_offset(&pmt__t.nodes[id]) == offset) {
            return above->mru = id;
        }
    }
    uint32_t at = node_hash(parent, code, offset) & pmt__t.node_hash_mask;
    for (uint32_t id; (id = pmt__t.node_hash[at]) != 0; at = (at + 1) & pmt__t.node_hash_mask) {
        const pmt__node *node = &pmt__t.nodes[id];
        if (node->parent == parent && node->code == code && node_offset(node) == offset) {
            return above->mru = id;
        }
    }
    if (pmt__t.node_count >= pmt__t.node_limit) {
        pmt__t.codes[code].seen_before_begin = 1; /* as there */
        pmt__t.counters[PMT_COUNTER_FOLDED_STACKS]++;
        return PMT_NODE_FOLDED;
    }
    uint32_t id = node_append(parent, start + offset, code, children < INLINE_CHILDREN);
    above->mru = id;
    if (children < INLINE_CHILDREN) {
        return id;
    }
    pmt__t.node_hash[at] = id;
    pmt__t.node_hashed++;
    if ((uint64_t)pmt__t.node_hashed * 3 > (uint64_t)pmt__t.node_hash_mask * 2
        && node_hash_grow() < 0) {
        pmt__t.node_limit = pmt__t.node_count; /* no memory: fold from here on */
    }
    return id;
}

PMT_NOINLINE uint32_t
pmt__node_slow_nopy(uint32_t parent, uint64_t instr, const void *object, int generator)
{
    if (parent == PMT_NODE_FOLDED) {
        return PMT_NODE_FOLDED;
    }
    pmt__child *child = &pmt__t.children[pmt__child_index(instr, parent)];
    if (PMT_LIKELY(child->instr == instr && child->parent == parent)) {
        return pmt__t.nodes[parent].mru = child->node;
    }
    uint32_t node = pmt__node_plain_nopy(parent, instr, object, generator);
    if (node != parent && node != PMT_NODE_FOLDED) {
        *child = (pmt__child){instr, parent, node};
    }
    return node;
}
