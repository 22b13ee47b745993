/* What takes the most time of cutting stamps, compiled: the weights of pixels and their sums, which
   catmorph/stamps/separable.py and weighing.py make with NumPy where this is not compiled, and the checksums of shards,
   which HDF5 makes then. The same comes out, bit for bit (but for what kind of NaN).

   Both ways to weigh add the same products in the same order in single precision, each product and each sum rounded. So
   this file must be compiled without contraction to fused multiply-adds (-ffp-contract=off, see hatch_build.py) and
   without options such as -ffast-math. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* 16: only half precision is computed in another one. */
#if (FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16) || defined(__FAST_MATH__)
#error "products and sums are not rounded one by one; NumPy does the work instead"
#endif

#ifdef _MSC_VER
#define restrict __restrict
#endif

/* Rows that are turned at once, and stamp pixels whose taps are weighed at once. */
#define LANES 8
#define PIECE 64

/* The compiler makes the code for several generations of processors; the best one is chosen when it is loaded. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define SEVERAL_MACHINES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SEVERAL_MACHINES
#endif

/* Raised when what this module does changes; catmorph/stamps/compiled.py asks for it. */
#define KERNEL_VERSION 1

/* Which pixels of one axis each of n stamps of `side` pixels needs, and their weights: those of pixel j of stamp s are
   weights[(t * n + s) * side + j] for the pixels first[s * side + j] + t, t from 0 to taps - 1. */
typedef struct {
    Py_ssize_t n, side, taps;
    const Py_ssize_t *first;
    const float *weights;
} Taps;

typedef struct {
    Py_ssize_t ny, nx, stride; /* stride: floats from row to row */
    const float *values;
} Image;

/* Whether all taps lie within `length` pixels. */
static int within(const Taps *axis, Py_ssize_t length)
{
    for (Py_ssize_t k = 0; k < axis->n * axis->side; k++)
        if (axis->first[k] < 0 || axis->first[k] > length - axis->taps)
            return 0;
    return 1;
}

/* Weigh the rows of `values` (stride floats from one to the next, `width` of them used) for stamp s, and turn them:
   out[x * side + i] becomes the weighted sum for stamp pixel i of column x. So what is read and what is written follow
   each other in memory, and two such passes, along y and then along x, make a stamp. `rows` has room for LANES rows. */
SEVERAL_MACHINES
static void weigh(const float *values, Py_ssize_t stride, Py_ssize_t width, const Taps *axis, Py_ssize_t s,
                  Py_ssize_t offset, float *restrict rows, float *restrict out)
{
    const Py_ssize_t side = axis->side, step = axis->n * side;
    for (Py_ssize_t begin = 0; begin < side; begin += LANES) {
        const int lanes = side - begin < LANES ? (int)(side - begin) : LANES;
        for (int lane = 0; lane < lanes; lane++) {
            const Py_ssize_t pixel = s * side + begin + lane;
            const float *restrict from = values + (axis->first[pixel] - offset) * stride;
            const float *weights = axis->weights + pixel;
            float *restrict row = rows + lane * width;
            Py_ssize_t t = 0;
            /* Sums begin with 0, which makes 0 of -0: taps without weight at their end change nothing. */
            if (axis->taps > 2) { /* most have three or four: in one go, which saves a seventh of the time */
                const float *restrict next = from + stride, *restrict last = next + stride;
                const float a = weights[0], b = weights[step], c = weights[2 * step];
                for (Py_ssize_t x = 0; x < width; x++)
                    row[x] = ((0.0f + a * from[x]) + b * next[x]) + c * last[x];
                t = 3;
            } else
                memset(row, 0, (size_t)width * sizeof *row);
            for (; t < axis->taps; t++) {
                const float *restrict next = from + t * stride;
                const float weight = weights[t * step];
                for (Py_ssize_t x = 0; x < width; x++)
                    row[x] += weight * next[x];
            }
        }
        for (Py_ssize_t x = 0; x < width; x++) {
            float *restrict to = out + x * side + begin;
            if (lanes == LANES) /* a loop of known length */
                for (int lane = 0; lane < LANES; lane++)
                    to[lane] = rows[lane * width + x];
            else
                for (int lane = 0; lane < lanes; lane++)
                    to[lane] = rows[lane * width + x];
        }
    }
}

/* The first pixel that stamp s needs, and how many from there on. */
static Py_ssize_t reach(const Taps *axis, Py_ssize_t s, Py_ssize_t *length)
{
    const Py_ssize_t *first = axis->first + s * axis->side;
    Py_ssize_t low = first[0], high = first[0];
    for (Py_ssize_t j = 1; j < axis->side; j++) {
        low = first[j] < low ? first[j] : low;
        high = first[j] > high ? first[j] : high;
    }
    *length = high + axis->taps - low;
    return low;
}

/* Cut all stamps to `out`; 0 where there is no memory for it. */
static int cut(const Image *image, const Taps *y, const Taps *x, float *out)
{
    const Py_ssize_t side = y->side;
    Py_ssize_t width, widest = side;
    for (Py_ssize_t s = 0; s < x->n; s++) {
        reach(x, s, &width);
        widest = width > widest ? width : widest;
    }
    float *rows = malloc((size_t)widest * LANES * sizeof *rows);
    float *turned = malloc((size_t)widest * (size_t)side * sizeof *turned);
    const int enough = rows && turned;
    for (Py_ssize_t s = 0; enough && s < x->n; s++) {
        const Py_ssize_t left = reach(x, s, &width);
        weigh(image->values + left, image->stride, width, y, s, 0, rows, turned);
        weigh(turned, side, side, x, s, left, rows, out + s * side * side);
    }
    free(rows);
    free(turned);
    return enough;
}

/* Weigh `taps` pixels for each of n stamp pixels, the first at `distance` from its centre and the others 1 on each, by
   what they share with an interval (area), or by a triangle, of `half` a length to each side; so that they sum to 1. */
SEVERAL_MACHINES
static void weigh_taps(const double *restrict distance, const double *restrict half, int area, Py_ssize_t taps,
                       Py_ssize_t n, double *restrict heights, float *restrict weights)
{
    for (Py_ssize_t begin = 0; begin < n; begin += PIECE) {
        const int some = n - begin < PIECE ? (int)(n - begin) : PIECE;
        double from[PIECE], width[PIECE], total[PIECE];
        for (int k = 0; k < some; k++) {
            from[k] = distance[begin + k];
            width[k] = half[begin + k];
            total[k] = 0;
        }
        for (Py_ssize_t t = 0; t < taps; t++) {
            double *restrict height = heights + t * PIECE;
            for (int k = 0; k < some; k++) {
                double value;
                if (area) {
                    const double high = from[k] + 0.5, low = from[k] - 0.5;
                    value = (high > width[k] ? width[k] : high) - (low < -width[k] ? -width[k] : low);
                } else
                    value = 1.0 - fabs(from[k] / width[k]);
                height[k] = value <= 0.0 ? 0.0 : value;
                total[k] += height[k];
                from[k] += 1;
            }
        }
        for (int k = 0; k < some; k++)
            total[k] = 1 / total[k];
        for (Py_ssize_t t = 0; t < taps; t++)
            for (int k = 0; k < some; k++)
                weights[t * n + begin + k] = (float)(heights[t * PIECE + k] * total[k]);
    }
}

/* Words whose sums are added up at once: 16 bits x 256 x 256 / 2 fit into 32. */
#define WORDS 256

/* The checksum of HDF5's Fletcher-32 filter: sums, and sums of sums, of big-endian words of 16 bits modulo 65535, which
   itself stands for 0 unless all words are 0. */
SEVERAL_MACHINES
static uint32_t fletcher32(const unsigned char *data, Py_ssize_t words)
{
    uint64_t sum = 0, sums = 0, any = 0;
    while (words > 0) {
        const uint32_t count = words < WORDS ? (uint32_t)words : WORDS;
        uint32_t more = 0, mores = 0;
        for (uint32_t k = 0; k < count; k++) {
            const uint32_t word = (uint32_t)data[2 * k] << 8 | data[2 * k + 1];
            more += word;
            mores += (count - k) * word;
        }
        sums = (sums + count * sum + mores) % 65535;
        sum = (sum + more) % 65535;
        any |= more;
        data += 2 * count;
        words -= count;
    }
    if (!any)
        return 0;
    return (uint32_t)((sums ? sums : 65535) << 16 | (sum ? sum : 65535));
}

/* ---- buffers of Python ---- */

static int is_integer(const Py_buffer *view)
{
    return view->itemsize == (Py_ssize_t)sizeof(Py_ssize_t) && strchr("lqn", view->format[0]) && !view->format[1];
}

static int is_double(const Py_buffer *view)
{
    return view->itemsize == (Py_ssize_t)sizeof(double) && strcmp(view->format, "d") == 0;
}

static int is_single(const Py_buffer *view)
{
    return view->itemsize == (Py_ssize_t)sizeof(float) && strcmp(view->format, "f") == 0;
}

/* Get the buffer of an array of `ndim` axes whose values are `kind`; -1 with an exception where it is another. */
static int get(PyObject *object, Py_buffer *view, int ndim, int (*kind)(const Py_buffer *), int flags, const char *name)
{
    if (PyObject_GetBuffer(object, view, flags | PyBUF_FORMAT) < 0)
        return -1;
    if (view->ndim == ndim && kind(view) && (uintptr_t)view->buf % (size_t)view->itemsize == 0)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s must have %d axes and another type of number, aligned", name, ndim);
    PyBuffer_Release(view);
    return -1;
}

enum { PIXELS, Y_FIRST, Y_WEIGHTS, X_FIRST, X_WEIGHTS, OUT, BUFFERS };

static Taps taps_of(const Py_buffer *first, const Py_buffer *weights)
{
    return (Taps){first->shape[0], first->shape[1], weights->shape[0], first->buf, weights->buf};
}

static int is_of(const Taps *axis, const Py_buffer *weights, const Py_buffer *out)
{
    return axis->taps > 0 && axis->n == out->shape[0] && axis->side == out->shape[1] && axis->side == out->shape[2]
           && weights->shape[1] == axis->n && weights->shape[2] == axis->side;
}

/* Do what `weighted_sums` is asked for; NULL with an exception where the shapes of the buffers do not fit. */
static PyObject *sums_of_buffers(Py_buffer *views)
{
    const Py_buffer *pixels = &views[PIXELS];
    const Taps y = taps_of(&views[Y_FIRST], &views[Y_WEIGHTS]), x = taps_of(&views[X_FIRST], &views[X_WEIGHTS]);
    const Py_ssize_t size = (Py_ssize_t)sizeof(float);
    const Image image = {pixels->shape[0], pixels->shape[1], pixels->strides[0] / size, pixels->buf};
    if (pixels->strides[1] != size || pixels->strides[0] % size || !is_of(&y, &views[Y_WEIGHTS], &views[OUT])
        || !is_of(&x, &views[X_WEIGHTS], &views[OUT])) {
        PyErr_SetString(PyExc_ValueError, "the arrays do not fit together");
        return NULL;
    }
    if (!within(&y, image.ny) || !within(&x, image.nx)) {
        PyErr_SetString(PyExc_IndexError, "taps lie beyond the pixels");
        return NULL;
    }
    if (!y.n || !y.side)
        Py_RETURN_NONE;
    int enough;
    Py_BEGIN_ALLOW_THREADS
    enough = cut(&image, &y, &x, views[OUT].buf);
    Py_END_ALLOW_THREADS
    if (!enough)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(weighted_sums_doc, "weighted_sums(pixels, y_first, y_weights, x_first, x_weights, out)\n--\n\n"
"Fill `out` (n, side, side) with n stamps of `pixels` (y, x); first (n, side), weights (tap, n, side).");

static PyObject *weighted_sums(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    static const struct {
        const char *name;
        int ndim, flags;
        int (*kind)(const Py_buffer *);
    } asked[BUFFERS] = {
        {"pixels", 2, PyBUF_STRIDES, is_single},
        {"y_first", 2, PyBUF_C_CONTIGUOUS, is_integer},
        {"y_weights", 3, PyBUF_C_CONTIGUOUS, is_single},
        {"x_first", 2, PyBUF_C_CONTIGUOUS, is_integer},
        {"x_weights", 3, PyBUF_C_CONTIGUOUS, is_single},
        {"out", 3, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE, is_single},
    };
    Py_buffer views[BUFFERS];
    PyObject *done = NULL;
    int got = 0;
    if (count != BUFFERS) {
        PyErr_SetString(PyExc_TypeError, "weighted_sums takes six arrays");
        return NULL;
    }
    while (got < BUFFERS && get(arguments[got], &views[got], asked[got].ndim, asked[got].kind, asked[got].flags,
                                asked[got].name) == 0)
        got++;
    if (got == BUFFERS)
        done = sums_of_buffers(views);
    while (got)
        PyBuffer_Release(&views[--got]);
    return done;
}

PyDoc_STRVAR(tap_weights_doc, "tap_weights(distance, half, area, weights)\n--\n\n"
"Fill `weights` (tap, n) of pixels at a `distance` (n) for intervals (area), or triangles, of `half` (n).");

static PyObject *tap_weights_of_buffers(const Py_buffer *distance, const Py_buffer *half, int area,
                                        Py_buffer *weights)
{
    const Py_ssize_t n = distance->shape[0], taps = weights->shape[0];
    if (half->shape[0] != n || weights->shape[1] != n || taps < 1) {
        PyErr_SetString(PyExc_ValueError, "the arrays do not fit together");
        return NULL;
    }
    double *heights = PyMem_New(double, taps > PY_SSIZE_T_MAX / PIECE ? PY_SSIZE_T_MAX : taps * PIECE);
    if (!heights)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    weigh_taps(distance->buf, half->buf, area, taps, n, heights, weights->buf);
    Py_END_ALLOW_THREADS
    PyMem_Free(heights);
    Py_RETURN_NONE;
}

static PyObject *tap_weights(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer distance, half, weights;
    PyObject *done = NULL;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "tap_weights takes three arrays and a bool");
        return NULL;
    }
    const int area = PyObject_IsTrue(arguments[2]);
    if (area < 0 || get(arguments[0], &distance, 1, is_double, PyBUF_C_CONTIGUOUS, "distance") < 0)
        return NULL;
    if (get(arguments[1], &half, 1, is_double, PyBUF_C_CONTIGUOUS, "half") == 0) {
        if (get(arguments[3], &weights, 2, is_single, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE, "weights") == 0) {
            done = tap_weights_of_buffers(&distance, &half, area, &weights);
            PyBuffer_Release(&weights);
        }
        PyBuffer_Release(&half);
    }
    PyBuffer_Release(&distance);
    return done;
}

PyDoc_STRVAR(fletcher32_doc, "fletcher32(data)\n--\n\nReturn the checksum of an even number of bytes.");

static PyObject *checksum(PyObject *Py_UNUSED(module), PyObject *data)
{
    Py_buffer view;
    uint32_t sum = 0;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    const int even = view.len % 2 == 0;
    if (even) {
        Py_BEGIN_ALLOW_THREADS
        sum = fletcher32(view.buf, view.len / 2);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&view);
    if (!even) {
        PyErr_SetString(PyExc_ValueError, "the number of bytes is odd");
        return NULL;
    }
    return PyLong_FromUnsignedLong(sum);
}

static PyMethodDef methods[] = {
    {"tap_weights", (PyCFunction)(void (*)(void))tap_weights, METH_FASTCALL, tap_weights_doc},
    {"fletcher32", checksum, METH_O, fletcher32_doc},
    {"weighted_sums", (PyCFunction)(void (*)(void))weighted_sums, METH_FASTCALL, weighted_sums_doc},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    return PyModule_AddIntConstant(module, "VERSION", KERNEL_VERSION);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernel", "Stamps from pixels, compiled; see catmorph.stamps.weighing.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
