/* softmax_loss.cu - softmax over the classes, the cross-entropy of each picture, and its gradient.
   p[m,n]       = exp(z[m,n] - top[n]) / total[n],  top[n] = max of z over m,  total[n] = sum of exp(z[m,n] - top[n]) over m
   each[n]      = log(total[n]) - (z[labels[n],n] - top[n])      the loss is the mean of each
   wrong[n]     = labels[n] is not the first of the classes whose z is top[n]
   totals      += sum of each, sum of wrong: what an epoch adds up, without a look from the host
   dlogits[m,n] = (p[m,n] - (m == labels[n])) / N

   logits z, p, dlogits   (M,N)   float32   C-contiguous, as are all; M below 2^24
   labels                 (N,)    int32, 0 .. M-1
   each, wrong            (N,)    float32, uint8
   totals                 (2,)    float64

   work      softmax and loss: one block = IMAGES pictures, THREADS threads each, which walk the classes in steps of THREADS
             and join their maxima and sums by halves, always in the same order. totals: one block, joined the same way.
             gradient: one warp = one class
   traffic   loss 8*M*N bytes if the second and third look at z hit cache, gradient 8*M*N; over the bandwidth, that is the
             floor. At 1000 classes and 128 pictures it is 0.2 us, and a launch costs more
   spec      zfcore/ops/softmax_loss.py: softmax_loss_reference                                                   */
#define IMAGES 8                    // 32 bytes of a row, what memory delivers at least
#define THREADS 128
#define TOTALS 128                  // threads of softmax_loss_totals

// The values of all threads of a picture, joined; every thread gets the outcome.
template <class Join> __device__ __forceinline__ float over_threads(float held[THREADS][IMAGES], float value, Join join)
{
    int thread = threadIdx.x / IMAGES, image = threadIdx.x % IMAGES;
    held[thread][image] = value;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) held[thread][image] = join(held[thread][image], held[thread + half][image]);
    }
    __syncthreads();
    value = held[0][image];
    __syncthreads();                                                        // before the next call writes
    return value;
}

// Fills p and finds top and total of this thread's picture.
__device__ __forceinline__ void probabilities(const float *z, float *p, float &top, float &total, int M, int N)
{
    __shared__ float held[THREADS][IMAGES];
    int thread = threadIdx.x / IMAGES, n = blockIdx.x * IMAGES + threadIdx.x % IMAGES;
    bool inside = n < N;
    top = __int_as_float(0xff800000), total = 0;                            // -infinity
    if (inside)
        for (int m = thread; m < M; m += THREADS) top = max(top, z[(long long)m * N + n]);
    top = over_threads(held, top, [](float a, float b) { return max(a, b); });
    if (inside)
        for (int m = thread; m < M; m += THREADS) total += expf(z[(long long)m * N + n] - top);
    total = over_threads(held, total, [](float a, float b) { return a + b; });
    if (inside)
        for (int m = thread; m < M; m += THREADS) p[(long long)m * N + n] = expf(z[(long long)m * N + n] - top) / total;
}

extern "C" __global__ void softmax(const float *logits, float *p, int M, int N)
{
    float top, total;
    probabilities(logits, p, top, total, M, N);
}

extern "C" __global__ void softmax_loss(const float *logits, const int *labels, float *p, float *each, unsigned char *wrong,
    int M, int N)
{
    __shared__ float held[THREADS][IMAGES];
    float top, total, best = M;                                             // class numbers are exact in float32
    probabilities(logits, p, top, total, M, N);
    int thread = threadIdx.x / IMAGES, n = blockIdx.x * IMAGES + threadIdx.x % IMAGES;
    if (n < N)
        for (int m = thread; m < M && best == M; m += THREADS)
            if (logits[(long long)m * N + n] == top) best = m;
    best = over_threads(held, best, [](float a, float b) { return min(a, b); });
    if (thread != 0 || n >= N) return;
    each[n] = logf(total) - (logits[(long long)labels[n] * N + n] - top);
    wrong[n] = best != labels[n];
}

extern "C" __global__ void softmax_loss_totals(const float *each, const unsigned char *wrong, double *totals, int N)
{
    __shared__ double held[2][TOTALS];
    double loss = 0, errors = 0;
    for (int n = threadIdx.x; n < N; n += TOTALS) loss += each[n], errors += wrong[n];
    held[0][threadIdx.x] = loss, held[1][threadIdx.x] = errors;
    for (int half = TOTALS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            for (int k = 0; k < 2; k++) held[k][threadIdx.x] += held[k][threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        for (int k = 0; k < 2; k++) totals[k] += held[k][0];
}

extern "C" __global__ void softmax_loss_gradient(const float *p, const int *labels, float *dlogits, int M, int N)
{
    int m = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (m >= M) return;
    p += (long long)m * N, dlogits += (long long)m * N;
    for (int n = threadIdx.x % 32; n < N; n += 32) dlogits[n] = (p[n] - (labels[n] == m)) / N;
}
