/* emu_ptx.cpp - what cp.async, ldmatrix, mma, mbarriers, TMA and wgmma compute, after the PTX ISA.

Asynchronous work takes effect at one of two extremes: eager, at issue, or lazy, at the last moment the rules allow; until
then a lazy result is NaN, as it is undefined. Products are summed in double: exact where a tensor core may round, so the
tolerances of tests on a GPU cannot be taken from here. What is not known for certain stops with "not emulated". */
#include "emu_rt.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

namespace emu {

static void check_shared(const void *address, size_t bytes, size_t alignment, const char *what, Site here)   // a power of two
{
    const char *p = (const char *)address;
    auto within = [&](const char *start, size_t size) { return p >= start && p + bytes <= start + size; };
    if (!within(arena, launch->shared) && !(launch->cluster == 1 && within(statics, statics_bytes)))
        fail(here, "%s: %zu bytes that do not lie in shared memory", what, bytes);
    if ((uintptr_t)p & (alignment - 1)) fail(here, "%s: the shared address is not a multiple of %zu", what, alignment);
}

// -------------------------------------------------------------------------------------------------------- cp.async
static void perform(const Copy &c)
{
    fibers[current].here = c.here;                              // so that a fault names the copy, not the wait
    if (launch->race) race::on_its_way(c.dst, c.bytes, 0);
    race::access(c.dst, c.bytes, race::WRITE, c.here);
    if (!c.pred) { memset(c.dst, 0, c.bytes); return; }
    race::access(c.src, c.bytes, race::READ, c.here);
    memcpy(c.dst, c.src, c.bytes);
}
void cp_async(void *dst, const void *src, unsigned bytes, bool pred, Site here)
{
    Fiber &f = enter("cp_async", here);
    check_shared(dst, bytes, bytes, "cp_async", here);
    if ((uintptr_t)src & (bytes - 1)) fail(here, "cp_async: the global address is not a multiple of %u", bytes);
    if (launch->eager_copies) return perform({(char *)dst, (const char *)src, bytes, pred, f.group, here});
    race::access(dst, bytes, race::WRITE, here);
    memset(dst, 0xff, bytes);
    if (launch->race) race::on_its_way((char *)dst, bytes, where_of(here));
    f.copies.emplace_back((char *)dst, (const char *)src, bytes, pred, f.group, here);
}
void cp_async_commit(Site here) { enter("cp_async_commit", here).group++; }
void cp_async_wait(unsigned pending, Site here)
{
    Fiber &f = enter("cp_async_wait", here);
    size_t done = 0;
    while (done < f.copies.size() && f.copies[done].group + pending < f.group) perform(f.copies[done++]);
    f.copies.erase(f.copies.begin(), f.copies.begin() + done);
    f.here = here;
}

void ptx_end_thread()
{
    for (const Copy &c : fibers[current].copies) perform(c);
}

// ------------------------------------------------------------------------------------------- ldmatrix and mma.sync
struct Ldmatrix { unsigned *r; int count; bool transposed; const char *row; };

static void ldmatrix_all(void **lanes, unsigned)
{
    for (int lane = 0; lane < 32; lane++) {
        Ldmatrix &mine = *(Ldmatrix *)lanes[lane];
        for (int m = 0; m < mine.count; m++)                    // lanes 8m..8m+7 hold the row addresses of matrix m
            for (int half = 0; half < 2; half++) {
                int row = lane / 4, column = lane % 4 * 2 + half;
                if (mine.transposed) std::swap(row, column);
                memcpy((char *)&mine.r[m] + 2 * half, ((Ldmatrix *)lanes[8 * m + row])->row + 2 * column, 2);
            }
    }
}
void ldmatrix(unsigned *r, int count, bool transposed, const void *row, Site here)
{
    Ldmatrix mine = {r, count, transposed, (const char *)row};
    if (current % 32 < 8 * count) {
        check_shared(row, 16, 16, "ldmatrix", here);
        race::access(row, 16, race::READ, here);
    }
    warp(~0u, transposed ? "ldmatrix_trans" : "ldmatrix", &mine, ldmatrix_all, here);
}

static float as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
static float tf32(unsigned bits) { return as_float(bits & ~0x1fffu); }                 // the low 13 bits are not read
static float bf16(unsigned pair, int half) { return as_float((half ? pair >> 16 : pair & 0xffff) << 16); }

typedef double Eight __attribute__((vector_size(64)));
struct Mma { float *d; const unsigned *a, *b; bool tf32; };

static void mma_all(void **lanes, unsigned)                    // d (16,8) += a (16,K) b (K,8); a row of 4 lanes per 8x8
{
    bool is_tf32 = ((Mma *)lanes[0])->tf32;
    int K = is_tf32 ? 8 : 16;
    double a[16][16];
    Eight b[16];                                                // many sums at once: none waits for the addition before it
    for (int lane = 0; lane < 32; lane++) {
        const Mma &mine = *(Mma *)lanes[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {                           // a[i]: rows g, g+8, g, g+8, then the second half of K
            int row = g + i % 2 * 8;
            if (is_tf32) a[row][t + i / 2 * 4] = tf32(mine.a[i]);
            else for (int half = 0; half < 2; half++) a[row][2 * t + half + i / 2 * 8] = bf16(mine.a[i], half);
        }
        for (int i = 0; i < 2; i++)
            if (is_tf32) b[t + 4 * i][g] = tf32(mine.b[i]);
            else for (int half = 0; half < 2; half++) b[2 * t + half + 8 * i][g] = bf16(mine.b[i], half);
    }
    for (int lane = 0; lane < 32; lane += 4)                    // the four lanes that hold a row, and the row 8 below it
        for (int below = 0; below < 2; below++) {
            Eight sums;
            auto of = [&](int column) -> float & { return ((Mma *)lanes[lane + column / 2])->d[2 * below + column % 2]; };
            for (int column = 0; column < 8; column++) sums[column] = of(column);
            for (int k = 0; k < K; k++) sums += a[lane / 4 + 8 * below][k] * b[k];
            for (int column = 0; column < 8; column++) of(column) = sums[column];
        }
}
void mma(const char *op, float *d, const unsigned *a, const unsigned *b, Site here)
{
    static const char *last = "";
    static bool tf32 = false;
    if (op != last) last = op, tf32 = strstr(op, "tf32") != nullptr;
    Mma mine = {d, a, b, tf32};
    warp(~0u, op, &mine, mma_all, here);
}

// -------------------------------------------------------------------------------------------------------- mbarriers
// The 64 bits of an mbarrier in shared memory: this layout is ours, a kernel cannot see it.
struct Mbarrier { uint64_t tag : 8, phase : 1, expected : 16, pending : 16; int64_t bytes : 23; };
const unsigned TAG = 0xb5;
struct Clocks { race::Clock arriving, completed; };
static std::map<uint64_t *, Clocks> clocks;

static Mbarrier *valid(uint64_t *bar, const char *what, Site here)
{
    check_shared(bar, 8, 8, what, here);
    Mbarrier *m = (Mbarrier *)bar;
    if (m->tag != TAG) fail(here, "%s: no mbarrier was initialised here", what);
    return m;
}
// Where p, in the running thread's shared memory, lies in that of block `rank` of its cluster.
template <class T> static T *there(T *p, unsigned rank) { return (T *)(arenas[rank] + ((char *)p - arena)); }
static Mbarrier *valid_at(unsigned rank, uint64_t *bar, const char *what, Site here)
{
    check_shared(bar, 8, 8, what, here);
    if (rank >= launch->cluster) fail(here, "%s: block %u of a cluster of %u", what, rank, launch->cluster);
    if (has_left(rank)) fail(here, "%s: block %u of the cluster has left", what, rank);
    Mbarrier *m = (Mbarrier *)there(bar, rank);
    if (m->tag != TAG) fail(here, "%s: no mbarrier was initialised here in block %u of the cluster", what, rank);
    return m;
}
void mbar_init(uint64_t *bar, unsigned count, Site here)
{
    enter("mbar_init", here);
    check_shared(bar, 8, 8, "mbar_init", here);
    race::access(bar, 8, race::WRITE, here);
    if (((Mbarrier *)bar)->tag == TAG) fail(here, "mbar_init of an mbarrier that is in use");
    if (count < 1 || count > 65535) fail(here, "mbar_init: a count of %u", count);
    *(Mbarrier *)bar = {TAG, 0, count, count, 0};
}
static void complete_if_due(uint64_t *bar)
{
    Mbarrier *m = (Mbarrier *)bar;
    if (m->pending || m->bytes) return;
    unsigned parity = m->phase;
    m->phase ^= 1, m->pending = m->expected;
    if (launch->race) clocks[bar].completed.swap(clocks[bar].arriving), clocks[bar].arriving.clear();
    for (int t = 0; t < threads; t++)
        if (fibers[t].state == AT_MBARRIER && fibers[t].bar == bar && fibers[t].parity == parity) wake(t);
}
static void arrive(Mbarrier *m, unsigned bytes, Site here)
{
    uint64_t *bar = (uint64_t *)m;
    race::access(bar, 8, race::ATOMIC, here);
    if (!m->pending) fail(here, "mbar_arrive: more than the %u arrivals that this phase expects", (unsigned)m->expected);
    if (launch->race) race::release(clocks[bar].arriving, current);
    m->bytes += bytes, m->pending--;
    complete_if_due(bar);
    offer_turn();
}
void mbar_arrive(uint64_t *bar, unsigned bytes, Site here)
{
    enter("mbar_arrive", here);
    arrive(valid(bar, "mbar_arrive", here), bytes, here);
}
void mbar_arrive_at(unsigned rank, uint64_t *bar, Site here)
{
    enter("mbar_arrive_at", here);
    arrive(valid_at(rank, bar, "mbar_arrive_at", here), 0, here);
}
void mbar_wait(uint64_t *bar, unsigned parity, Site here)
{
    Fiber &f = enter(parity & 1 ? "mbar_wait(parity 1)" : "mbar_wait(parity 0)", here);
    Mbarrier *m = valid(bar, "mbar_wait", here);
    race::access(bar, 8, race::ATOMIC, here);
    f.bar = bar, f.parity = parity & 1;
    if (m->phase == f.parity) wait_as(AT_MBARRIER);
    if (launch->race) race::acquire(clocks[bar].completed, current);
}

// -------------------------------------------------------------------------------------------------------------- TMA
struct alignas(64) TensorMap {                                  // packed by emu.py; its fields follow cuTensorMapEncode*
    const char *base;
    uint64_t strides[4];                                        // bytes, of dimensions 1..4; dimension 0 is contiguous
    uint32_t sizes[5];
    uint16_t box[5], steps[5];                                  // tiled: box; im2col: steps over the pixels
    int16_t lower[2], upper[2]; uint16_t pixels, channels;      // im2col: corners (w,h) of the box of pixels
    uint8_t rank, item, swizzle, im2col;
};
struct Tma {                                                    // to one block of the cluster
    char *dst; TensorMap map; uint64_t *bar; int at[5]; unsigned short offsets[2]; int rank, thread; Site here;
};
static std::vector<Tma> in_flight;

static size_t tma_bytes(const TensorMap &m)
{
    size_t bytes = m.item;
    if (m.im2col) return bytes * m.pixels * m.channels;
    for (int k = 0; k < m.rank; k++) bytes *= m.box[k];
    return bytes;
}
static unsigned swizzle_128b(unsigned address) { return address ^ (address >> 3 & 0x70); }      // bits 4-6 ^= bits 7-9

static void put(const Tma &t, size_t index, const int *at, int count)   // elements `index`.. of the box, a row from `at` on
{
    const TensorMap &m = t.map;
    bool inside = true;
    const char *src = m.base + (int64_t)at[0] * m.item;
    for (int k = 1; k < m.rank; k++) {
        inside = inside && at[k] >= 0 && at[k] < (int)m.sizes[k];
        src += at[k] * (int64_t)m.strides[k - 1];
    }
    for (int i = 0; i < count; i++, src += m.item) {
        char *dst = t.dst + (index + i) * m.item;
        if (m.swizzle) dst = arenas[t.rank] + swizzle_128b(dst - arenas[t.rank]);
        if (inside && at[0] + i >= 0 && at[0] + i < (int)m.sizes[0]) memcpy(dst, src, m.item);
        else memset(dst, 0, m.item);
    }
}
static void perform(const Tma &t)
{
    const TensorMap &m = t.map;
    size_t count = tma_bytes(m) / m.item;
    if (has_left(t.rank)) fail(t.here, "this copy goes into block %d of the cluster, which has left", t.rank);
    if (launch->race) race::access(t.thread, t.dst, tma_bytes(m), race::by_proxy(race::WRITE), where_of(t.here));
    if (!m.im2col)
        for (size_t index = 0; index < count; index += m.box[0]) {
            int at[5] = {t.at[0]};
            size_t rest = index / m.box[0];
            for (int k = 1; k < m.rank; k++) at[k] = t.at[k] + rest % m.box[k], rest /= m.box[k];
            put(t, index, at, m.box[0]);
        }
    else {                                                      // pixels in the order w, h, n inside the corners
        int w = t.at[1], h = t.at[2], n = t.at[3];
        for (size_t pixel = 0; pixel < m.pixels; pixel++) {
            int at[4] = {t.at[0], w + t.offsets[0], h + t.offsets[1], n};
            put(t, pixel * m.channels, at, m.channels);
            if ((w += m.steps[1]) < (int)m.sizes[1] + m.upper[0]) continue;
            w = m.lower[0];
            if ((h += m.steps[2]) < (int)m.sizes[2] + m.upper[1]) continue;
            h = m.lower[1], n++;
        }
    }
    if (launch->race) race::release(clocks[t.bar].arriving, t.thread);
    ((Mbarrier *)t.bar)->bytes -= tma_bytes(m);
    complete_if_due(t.bar);
}
static void start(const Tma &t)
{
    race::access(t.bar, 8, race::by_proxy(race::ATOMIC), t.here);
    if (launch->eager_copies) return perform(t);
    race::access(t.dst, tma_bytes(t.map), race::by_proxy(race::WRITE), t.here);
    memset(t.dst, 0xff, tma_bytes(t.map));
    in_flight.push_back(t);
}
void tma_load(void *dst, const void *map, uint64_t *bar, int rank, const int *at, const unsigned short *im2col,
              const unsigned short *blocks, Site here)
{
    enter(blocks ? "tma_multicast" : "tma_load", here);
    Tma t = {(char *)dst, *(const TensorMap *)map, bar, {}, {}, rank_of(current), current, here};
    std::copy_n(at, rank, t.at);
    if (im2col) std::copy_n(im2col, 2, t.offsets);
    if (t.map.rank != rank || t.map.im2col != (im2col != nullptr)) fail(here, "tma_load: the tensor map is of another kind");
    check_shared(dst, tma_bytes(t.map), t.map.swizzle ? 1024 : 128, "tma_load", here);
    if (t.map.swizzle) shared_address(dst, here);
    if (!blocks) {
        valid(bar, "tma_load", here);
        start(t);
    } else if (!*blocks || *blocks >> launch->cluster)
        fail(here, "tma_multicast to blocks %#x of a cluster of %u", *blocks, launch->cluster);
    else
        for (t.rank = 0; t.rank < (int)launch->cluster; t.rank++)
            if (*blocks >> t.rank & 1) {
                t.dst = there((char *)dst, t.rank), t.bar = (uint64_t *)valid_at(t.rank, bar, "tma_multicast", here);
                start(t);
            }
    if (launch->eager_copies) offer_turn();
}
bool ptx_finish_a_copy()
{
    if (in_flight.empty()) return false;
    size_t last = in_flight.size() - 1;
    size_t which = launch->schedule == FORWARD ? 0 : launch->schedule == REVERSE ? last : roll() % (last + 1);
    Tma t = in_flight[which];
    in_flight.erase(in_flight.begin() + which);
    perform(t);
    return true;
}

// ------------------------------------------------------------------------------------------------------------ wgmma
// d (64,n) += a (64,K) b (K,n), of which each of the four warps of a warpgroup computes its 16 rows, when all its lanes
// have come. That the four warps issue the same products is checked at the end of the block. Nothing is assumed about one
// warp from another's wait: a stage is free when each of the four warps has released it.
struct Wgmma { bool tf32, accumulate, a_mn, b_mn; int n; uint64_t a, b; float *d; };
struct Product : Wgmma { float *lanes[32]; std::vector<float> saved; unsigned group; int first; Site here; };
static std::vector<Product> products;
static unsigned groups[MAX_THREADS / 32], grouped[MAX_THREADS / 32];            // committed, and the products in them

// The shared address of element (mn, k) of an operand. 128-byte swizzle, K-major: rows of 128 bytes along k, 8 rows in an
// atom of 1024 bytes, atoms `stride` apart. MN-major: rows of 64 elements along mn, 8 of them (k) in an atom, atoms `stride`
// apart along k and `leading` apart along mn.
struct Operand {
    unsigned start, leading, stride, item; bool mn_major;
    unsigned at(int mn, int k) const
    {
        return swizzle_128b(mn_major ? start + mn / 64 * leading + k / 8 * stride + k % 8 * 128 + mn % 64 * item
                                     : start + mn / 8 * stride + mn % 8 * 128 + k * item);
    }
};
static Operand decode(uint64_t d, bool tf32, bool mn_major, Site here)
{
    auto field = [&](int bit) { return unsigned(d >> bit & 0x3fff) << 4; };
    Operand o = {field(0), field(16), field(32), tf32 ? 4u : 2u, mn_major};
    if (d >> 62 != 1) fail(here, "wgmma: a descriptor without 128-byte swizzle is not emulated");
    if (d >> 49 & 7 || o.start & 0x380)
        fail(here, "wgmma: a descriptor that starts inside the swizzle's 1024 bytes is not emulated");
    if (d & 0x3ff1c000c000c000) fail(here, "wgmma: reserved bits set in a descriptor");
    if (o.start % (mn_major ? 1024 : 32)) fail(here, "wgmma: a descriptor starting at byte %u is not emulated", o.start);
    return o;
}
// The 16 bytes that the swizzle leaves together, as numbers: from element (mn, k) on along the major axis.
static void read_together(const Product &p, const Operand &o, int mn, int k, double *numbers)
{
    unsigned address = o.at(mn, k), words[4];
    if (address + 16 > launch->shared)
        fail(p.here, "wgmma reads byte %u of %u in dynamic shared memory", std::max(address, launch->shared), launch->shared);
    memcpy(words, arena + address, 16);
    for (unsigned i = 0; i < 16 / o.item; i++) numbers[i] = o.item == 4 ? tf32(words[i]) : bf16(words[i / 2], i % 2);
    if (launch->race) race::access(p.first, arena + address, 16, race::by_proxy(race::READ), where_of(p.here));
}
static void read_operand(const Product &p, const Operand &o, int first, int many, int K, double *numbers)    // (K,many)
{
    double some[8];
    int count = 16 / o.item;
    for (int along = 0; along < (o.mn_major ? many : K); along += count)
        for (int across = 0; across < (o.mn_major ? K : many); across++) {
            int mn = o.mn_major ? along : across, k = o.mn_major ? across : along;
            read_together(p, o, first + mn, k, some);
            for (int i = 0; i < count; i++) numbers[o.mn_major ? k * many + mn + i : (k + i) * many + mn] = some[i];
        }
}
static double left[16 * 16], right[16 * 256];                   // (K,16) and (K,n): what a product multiplies
static void read_operands(const Product &p)
{
    Operand a = decode(p.a, p.tf32, p.a_mn, p.here), b = decode(p.b, p.tf32, p.b_mn, p.here);
    read_operand(p, a, p.first / 32 % 4 * 16, 16, p.tf32 ? 8 : 16, left);
    read_operand(p, b, 0, p.n, p.tf32 ? 8 : 16, right);
}
// sums[j] += by * row[j]
static void add_multiple(double *sums, double by, const double *row, int n)
{
    for (int j = 0; j < n; j++) sums[j] += by * row[j];
}
static void perform(Product &p)
{
    read_operands(p);
    for (int row = 0; row < 16; row++) {
        double sums[256];
        auto place = [&](int column) { return column / 8 * 4 + row / 8 * 2 + column % 2; };       // of a lane's sums
        auto lane = [&](int column) { return row % 8 * 4 + column % 8 / 2; };
        for (int j = 0; j < p.n; j++)
            sums[j] = !p.accumulate ? 0 : p.saved.empty() ? p.lanes[lane(j)][place(j)] : p.saved[lane(j) * p.n / 2 + place(j)];
        for (int k = 0; k < (p.tf32 ? 8 : 16); k++) add_multiple(sums, left[k * 16 + row], right + k * p.n, p.n);
        for (int j = 0; j < p.n; j++) p.lanes[lane(j)][place(j)] = sums[j];
    }
}
static void wgmma_all(void **lanes, unsigned)
{
    Product p;
    (Wgmma &)p = *(Wgmma *)lanes[0];
    p.first = current & ~31, p.group = groups[current / 32], p.here = fibers[current].here;
    for (int lane = 0; lane < 32; lane++) {
        const Wgmma &mine = *(Wgmma *)lanes[lane];
        Fiber &f = fibers[p.first + lane];
        p.lanes[lane] = mine.d;
        if (mine.a != p.a || mine.b != p.b || mine.accumulate != p.accumulate)
            fail(p.here, "wgmma: the lanes' descriptors differ");
        if (!f.fenced) fail(p.here, "wgmma without a wgmma_fence since the last wait");
        f.products++;
        f.products_hash = (f.products_hash * 31 + p.a) * 31 + p.b * 31 + p.n;
    }
    if (launch->eager_wgmma) return perform(p);
    if (launch->race) read_operands(p);                   // a product reads from its issue on, until its wait
    auto same = [&](const Product &q) { return q.lanes[0] == p.lanes[0]; };
    bool chained = std::any_of(products.begin(), products.end(), same);
    for (int lane = 0; lane < 32 && !chained; lane++) {         // until the wait, the registers are undefined
        p.saved.insert(p.saved.end(), p.lanes[lane], p.lanes[lane] + p.n / 2);
        memset(p.lanes[lane], 0xff, p.n / 2 * sizeof(float));
    }
    products.push_back(p);
}
void wgmma(bool tf32, int n, float *d, uint64_t a, uint64_t b, bool accumulate, bool a_mn, bool b_mn, Site here)
{
    if ((current / 128 + 1) * 128 > threads) fail(here, "wgmma by an incomplete warpgroup");
    Wgmma mine = {tf32, accumulate, a_mn, b_mn, n, a, b, d};
    warp(~0u, "wgmma", &mine, wgmma_all, here);
}
void wgmma_fence(Site here) { enter("wgmma_fence", here).fenced = true; }
/* An empty group is allowed, but none is meant: where products are asked for on some ways to a commit only, ptxas ends their
   group by itself and makes one more of a product into no register, which is then the one that wait<1> leaves open. */
static void commit_all(void **, unsigned)
{
    Fiber &f = fibers[current];
    if (f.products == grouped[current / 32]) fail(f.here, "wgmma_commit of no products");
    groups[current / 32]++, grouped[current / 32] = f.products;
}
void wgmma_commit(Site here) { warp(~0u, "wgmma_commit", 0, commit_all, here); }
static void wgmma_wait_all(void **lanes, unsigned)
{
    unsigned pending = *(unsigned *)lanes[0], group = groups[current / 32];
    int first = current & ~31;
    auto due = [&](const Product &p) { return p.first == first && p.group + pending < group; };
    for (Product &p : products) if (due(p)) perform(p);
    products.erase(std::remove_if(products.begin(), products.end(), due), products.end());
    for (int lane = 0; lane < 32; lane++) fibers[first + lane].fenced = false;
    if (launch->race) race::warp_meets(first, ~0u);            // reads were noted as the first lane's; any may release
}
void wgmma_wait(unsigned pending, Site here) { warp(~0u, "wgmma_wait", &pending, wgmma_wait_all, here); }

// ------------------------------------------------------------------------------------------------- proxies, registers
static void nothing(void **, unsigned) {}
void fence_async_proxy(Site here)
{
    enter("fence_async_proxy", here);
    if (launch->race) race::fence(current);
}
/* Registers come from the block's pool, which holds what the launch gave to all of its threads, less than an SM has: 384
   threads of 168 leave 1024 of 65536 outside. More are waited for until others have given theirs. */
void registers_change(bool more, unsigned count, Site here)
{
    const char *what = more ? "registers_increase" : "registers_decrease";
    Fiber &f = enter(what, here);
    if ((current / 128 + 1) * 128 > threads) fail(here, "%s by an incomplete warpgroup", what);
    if (more ? count < f.registers : count > f.registers)
        fail(here, "%s to %u of a thread that has %u", what, count, f.registers);
    warp(~0u, what, 0, nothing, here);
    int first = first_of(rank_of(current)), end = first + launch->block;
    auto taken = [=] { unsigned sum = 0; for (int t = first; t < end; t++) sum += fibers[t].registers; return sum; };
    while (more && taken() + count - f.registers > launch->block * registers_at_launch()) wait_as(AT_REGISTERS);
    f.registers = count;
    for (int t = first; t < end && !more; t++) if (fibers[t].state == AT_REGISTERS) wake(t);
}

// -------------------------------------------------------------------------------------------------- course of a block
void ptx_start_block()
{
    clocks.clear(), in_flight.clear(), products.clear();
    std::fill_n(groups, MAX_THREADS / 32, 0), std::fill_n(grouped, MAX_THREADS / 32, 0);
}
void ptx_end_block()
{
    if (!in_flight.empty()) fail(in_flight[0].here, "the block ended before this TMA load was waited for");
    if (!products.empty()) fail(products[0].here, "the block ended before this wgmma was waited for");
    for (int t = 0; t + 32 < threads; t += 32) {
        const Fiber &f = fibers[t], &next = fibers[t + 32];
        if (t % 128 < 96 && (f.products != next.products || f.products_hash != next.products_hash))
            fail(f.here, "warps %u and %u of one warpgroup issued different wgmma", t / 32, t / 32 + 1);
        if (t % 128 < 96 && f.registers != next.registers)
            fail(f.here, "warps %u and %u of one warpgroup ended with %u and %u registers", t / 32, t / 32 + 1, f.registers,
                 next.registers);
    }
}

}
