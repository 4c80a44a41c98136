/* hinge_loss.cu - one-against-the-rest SVM loss of each picture, and its gradient.
   margins[m,n] = max(0, |t| - t*scores[m,n]), t = targets[m,n]
   each[n]      = sum of margins[m,n] over m, or of their squares; the loss is the mean of each
   dscores[m,n] = -t/N * (1 where margins[m,n] > 0, else 0), or -t/N * 2*margins[m,n] if squared

   scores, targets (-1, 0, +1), margins, dscores   (M,N)   float32   C-contiguous, as are all
   each                                            (N,)    float32

   work      forward: one block = IMAGES pictures, THREADS threads each, which walk the classes in steps of THREADS and join
             their sums by halves, always in the same order. backward: one thread = one element
   traffic   12*M*N bytes each; over the bandwidth, that is the floor
   spec      zfcore/ops/hinge_loss.py: hinge_loss_reference                                               */
#define IMAGES 8                    // 32 bytes of a row, what memory delivers at least
#define THREADS 32

extern "C" __global__ void hinge_loss(const float *scores, const float *targets, float *margins, float *each,
    int M, int N, int squared)
{
    __shared__ float held[THREADS][IMAGES];
    int thread = threadIdx.x / IMAGES, image = threadIdx.x % IMAGES, n = blockIdx.x * IMAGES + image;
    float sum = 0;
    if (n < N)
        for (int m = thread; m < M; m += THREADS) {
            long long i = (long long)m * N + n;
            float t = targets[i], short_of = fabsf(t) - t * scores[i];
            short_of = short_of < 0 ? 0 : short_of;                         // a NaN stays one
            margins[i] = short_of;
            sum += squared ? short_of * short_of : short_of;
        }
    held[thread][image] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) held[thread][image] += held[thread + half][image];
    }
    if (thread == 0 && n < N) each[n] = held[0][image];                     // written by this very thread
}

extern "C" __global__ void hinge_loss_gradient(const float *margins, const float *targets, float *dscores,
    long long total, int N, int squared)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    float slope = squared ? 2 * margins[i] : margins[i] > 0;
    dscores[i] = -targets[i] * slope / N;
}
