/* sgd_step.cu - one step of gradient descent with momentum and weight decay, in one pass.
   v[i] = momentum*v[i] - lr*(dw[i] + weight_decay*w[i]),  then  w[i] = w[i] + v[i]

   w, v (changed in place), dw   any shape, `total` elements   float32   C-contiguous

   work      one thread = LANES neighbouring elements (LANES divides total)
   traffic   20*total bytes; over the bandwidth, that is the floor
   spec      zfcore/ops/sgd_step.py: sgd_step_reference                                                   */
#ifndef LANES
#define LANES 4
#endif
struct __align__(4 * LANES) Pack { float v[LANES]; };

extern "C" __global__ void sgd_step(float *w, const float *dw, float *v, long long total,
    float lr, float momentum, float weight_decay)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total / LANES) return;
    Pack weight = ((const Pack *)w)[i], gradient = ((const Pack *)dw)[i], velocity = ((const Pack *)v)[i];
    for (int k = 0; k < LANES; k++) {
        velocity.v[k] = momentum * velocity.v[k] - lr * (gradient.v[k] + weight_decay * weight.v[k]);
        weight.v[k] += velocity.v[k];
    }
    ((Pack *)v)[i] = velocity;
    ((Pack *)w)[i] = weight;
}
