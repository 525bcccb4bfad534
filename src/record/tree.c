/* The stack tree, the code objects below it and their names.

   A node is keyed by (parent, place), a place by (code id, offset); both stay true for ever. What goes by the address of an
   instruction is true only while the code object lives: the cache from addresses to places, and the cached stacks of the
   threads. Both are cleaned when a code object dies. When an equal one appears, its code id comes back, and with it its places
   and nodes. Equal means: same file, name, first line, location table and bytecode size, by a 64-bit fingerprint. */
#include "record/tables.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/varint.h"
#include "platform/platform.h"
#include "record/sample.h"
#include "record/shadow.h"

#define LISTED_CHILDREN 12 /* in the list of a node before the hash is asked */

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
pair_hash(uint32_t a, uint32_t b)
{
    uint64_t key = ((uint64_t)a << 32 | b) * PMT_MIX;
    return (uint32_t)((key ^ key >> 29) * PMT_MIX >> 32);
}

static uint32_t
node_hash(uint32_t id)
{
    return pair_hash(pmt__t.nodes[id].parent, pmt__t.nodes[id].place);
}

static void
ids_insert(uint32_t *ids, uint32_t mask, uint32_t hash, uint32_t id)
{
    uint32_t at = hash & mask;
    while (ids[at] != 0) {
        at = (at + 1) & mask;
    }
    ids[at] = id;
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
        if (id != 0) {
            ids_insert(ids, mask, node_hash(id), id);
        }
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

/* Room for a whole definition, or NULL: then there is none of it, and what stands before it stays good. */
static uint8_t *
new_room(pmt__buffer *definitions, size_t bytes)
{
    uint8_t *out = pmt__buffer_reserve(definitions, bytes);
    definitions->failed = 0;
    return out;
}

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
    uint8_t *out = new_room(&pmt__t.new_strings, cut.length * 4 + 2 * PMT_VARINT_MAX);
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
            ids_insert(alive, mask, code_hash(pmt__t.codes[id].object), id);
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

/* 0, or -1: no memory. */
static int
code_define(const pmt__code_facts *facts)
{
    uint32_t file = pmt__string_intern_nopy(&facts->file);
    uint32_t name = pmt__string_intern_nopy(&facts->name);
    pmt__buffer *out = &pmt__t.new_codes;
    if (new_room(out, facts->line_table_size + 7 * PMT_VARINT_MAX) == NULL) {
        return -1;
    }
    pmt__buffer_put_varint(out, file);
    pmt__buffer_put_varint(out, name);
    pmt__buffer_put_varint(out, 0); /* module: the reader derives it */
    pmt__buffer_put_zigzag(out, facts->first_line);
    pmt__buffer_put_varint(out, 0);
    pmt__buffer_put_varint(out, facts->size);
    pmt__buffer_put_text(out, (const char *)facts->line_table, facts->line_table_size);
    return 0;
}

/* Places for a new code object; PMT_PLACE_FOLDED at the memory limit. */
static uint32_t
places_new(uint32_t code, uint32_t size)
{
    uint32_t blocks = size / 2 / PMT_PLACE_BLOCK + 1;
    while (blocks >= pmt__t.block_room - pmt__t.block_count) {
        uint32_t room = pmt__t.block_room;
        pmt__t.blocks_wanted = blocks;
        pmt__tables_grow_nopy();
        pmt__t.blocks_wanted = 1;
        if (pmt__t.block_room == room) {
            return PMT_PLACE_FOLDED;
        }
    }
    uint32_t first = pmt__t.block_count * PMT_PLACE_BLOCK;
    for (uint32_t i = 0; i < blocks; i++) {
        pmt__t.code_of[pmt__t.block_count++] = code;
    }
    return first;
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
        uint32_t first = pmt__t.code_count >= pmt__t.code_limit
                             ? PMT_PLACE_FOLDED
                             : places_new(pmt__t.code_count, facts.size);
        if (first == PMT_PLACE_FOLDED || code_define(&facts) < 0) {
            return 0;
        }
        id = pmt__t.code_count++;
        pmt__t.codes[id].first = first;
    }
    pmt__code *code = &pmt__t.codes[id];
    code->object = object;
    code->start = facts.start;
    code->size = facts.size;
    code->traceable = facts.traceable;
    code->fingerprint = print;
    code->next_dead = 0;
    ids_insert(pmt__t.code_hash, pmt__t.code_hash_mask, code_hash(object), id);
    if (!pmt__sampling_now.on) {
        pmt__shadow_watch(object); /* its free must tell us */
    }
    return id;
}

int
pmt__code_known(const void *object)
{
    return code_hash_find(object) != UINT32_MAX;
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
    uint32_t at = code_hash_find(object);
    if (at == UINT32_MAX) {
        return;
    }
    uint32_t id = pmt__t.code_hash[at];
    code_hash_remove(at);
    pmt__code *code = &pmt__t.codes[id];
    code->object = NULL;
    pmt__code_entry *known = pmt__code_slot(object);
    if (known->object == object) {
        memset(known, 0, sizeof *known);
    }
    __atomic_fetch_add(&pmt__t.lane_generation, 1, __ATOMIC_RELAXED);
    stacks_forget(code->start - 2,
                  code->size); /* 3.11 and 3.12 begin one unit before the first instruction */
    uint32_t *head = &pmt__t.dead_hash[code->fingerprint & pmt__t.dead_hash_mask];
    code->next_dead = *head;
    *head = id;
}

void
pmt__code_verify_nopy(const void *object)
{
    uint32_t at = code_hash_find(object);
    if (at == UINT32_MAX) {
        return;
    }
    pmt__code_facts facts;
    pmt__t.source->code_describe_nopy(object, &facts);
    if (fingerprint(&facts) != pmt__t.codes[pmt__t.code_hash[at]].fingerprint) {
        pmt__code_died_nopy(object);
    }
}

/* --- places -------------------------------------------------------------------------------------------------------------- */

static uint32_t
place_in(const pmt__code *code, uint64_t instr, int generator)
{
    uint64_t unit = (instr - code->start) / 2;
    uint32_t place = code->first + (unit <= code->size / 2 ? (uint32_t)unit : 0);
    int begun = instr >= code->start + code->traceable || generator;
    return begun ? place : place | PMT_PLACE_NOT_BEGUN;
}

uint32_t
pmt__place_plain_nopy(uint64_t instr, const void *object, int generator)
{
    pmt__tables_room_nopy();
    uint32_t id = code_get(object);
    return id == 0 ? PMT_PLACE_FOLDED : place_in(&pmt__t.codes[id], instr, generator);
}

PMT_NOINLINE uint32_t
pmt__place_slow_nopy(uint64_t instr, const void *object, int generator)
{
    if (object == NULL) {
        return PMT_PLACE_NONE | PMT_PLACE_NOT_BEGUN;
    }
    pmt__code_entry *known = pmt__code_slot(object);
    if (known->object == object && (instr - known->start) / 2 < known->begin) {
        return (known->first + (uint32_t)((instr - known->start) / 2))
               | (generator ? 0 : PMT_PLACE_NOT_BEGUN);
    }
    pmt__tables_room_nopy();
    uint32_t id = code_get(object);
    if (id == 0) {
        return PMT_PLACE_FOLDED;
    }
    const pmt__code *code = &pmt__t.codes[id];
    uint32_t units = code->size / 2 + 1, begin = code->traceable / 2;
    *known = (pmt__code_entry){
        object, code->start, code->first, begin, units > begin ? units - begin : 0, 0};
    return place_in(code, instr, generator);
}

/* --- nodes --------------------------------------------------------------------------------------------------------------- */

static uint32_t
node_append(uint32_t parent, uint32_t place, uint32_t last_listed, int in_list)
{
    uint32_t id = pmt__t.node_count++;
    pmt__node *node = &pmt__t.nodes[id];
    node->parent = parent;
    node->place = place;
    if (in_list) {
        /* Children are made in program order: keep that order, recursive programs then walk the array forwards. */
        *(last_listed == 0 ? &pmt__t.nodes[parent].first : &pmt__t.nodes[last_listed].next) = id;
    }
    return id;
}

uint32_t
pmt__node_plain_nopy(uint32_t parent, uint32_t place)
{
    if (place & PMT_PLACE_NOT_BEGUN) {
        return parent;
    }
    if (place == PMT_PLACE_FOLDED || parent == PMT_NODE_FOLDED) {
        pmt__t.counters[PMT_COUNTER_FOLDED_STACKS] += parent != PMT_NODE_FOLDED;
        return PMT_NODE_FOLDED;
    }
    pmt__tables_room_nopy();
    uint32_t children = 0, last = 0;
    for (uint32_t id = pmt__t.nodes[parent].first; id != 0; id = pmt__t.nodes[id].next) {
        if (pmt__t.nodes[id].place == place) {
            return id;
        }
        last = id;
        children++;
    }
    uint32_t hash = pair_hash(parent, place), mask = pmt__t.node_hash_mask;
    for (uint32_t id, at = hash & mask;
         children >= LISTED_CHILDREN && (id = pmt__t.node_hash[at]) != 0; at = (at + 1) & mask) {
        if (pmt__t.nodes[id].parent == parent && pmt__t.nodes[id].place == place) {
            return id;
        }
    }
    if (pmt__t.node_count >= pmt__t.node_limit) {
        pmt__t.counters[PMT_COUNTER_FOLDED_STACKS]++;
        return PMT_NODE_FOLDED;
    }
    uint32_t id = node_append(parent, place, last, children < LISTED_CHILDREN);
    if (children < LISTED_CHILDREN) {
        return id;
    }
    ids_insert(pmt__t.node_hash, mask, hash, id);
    pmt__t.node_hashed++;
    if ((uint64_t)pmt__t.node_hashed * 3 > (uint64_t)mask * 2 && node_hash_grow() < 0) {
        pmt__t.node_limit = pmt__t.node_count; /* no memory: fold from here on */
    }
    return id;
}

PMT_NOINLINE uint32_t
pmt__node_slow_nopy(uint32_t parent, uint32_t place)
{
    if (place & PMT_PLACE_NOT_BEGUN) {
        return parent;
    }
    uint32_t *hint = &pmt__t.children[pmt__child_index(parent, place)];
    const pmt__node *child = &pmt__t.nodes[*hint];
    if (PMT_LIKELY(child->place == place && child->parent == parent)) {
        return *hint;
    }
    return *hint = pmt__node_plain_nopy(parent, place);
}
