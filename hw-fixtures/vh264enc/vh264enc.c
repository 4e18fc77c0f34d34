// SPDX-License-Identifier: GPL-2.0-only
/*
 * vh264enc: a virtual stateful V4L2 memory-to-memory H.264 encoder, for tests.
 *
 * It keeps to the stateful encoder interface (MPLANE; OUTPUT NV12/YU12/NV21,
 * CAPTURE H264) and makes a valid Constrained Baseline stream with no transform
 * at all: I_PCM macroblocks where the bit budget allows, Intra16x16 DC prediction
 * without residual otherwise (I pictures), P_Skip otherwise (P pictures).
 * With bitrate 0 (V4L2_CID_MPEG_VIDEO_BITRATE_MODE CQ) it is lossless.
 */
#include <linux/module.h>
#include <linux/delay.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <media/v4l2-mem2mem.h>
#include <media/v4l2-device.h>
#include <media/v4l2-ioctl.h>
#include <media/v4l2-ctrls.h>
#include <media/v4l2-event.h>
#include <media/videobuf2-vmalloc.h>

#define NAME "vh264enc"

static unsigned int latency_us;
module_param(latency_us, uint, 0644);
MODULE_PARM_DESC(latency_us, "extra time per frame");
static int fail_frames;
module_param(fail_frames, int, 0644);
MODULE_PARM_DESC(fail_frames, "the next N frames come back with V4L2_BUF_FLAG_ERROR; -1: all");
static unsigned int hang;
module_param(hang, uint, 0644);
MODULE_PARM_DESC(hang, "1: jobs do not finish until streaming stops; 2: not even then");
static unsigned int max_width = 1920, max_height = 1088;
module_param(max_width, uint, 0444);
module_param(max_height, uint, 0444);
static unsigned int max_instances = 1000;
module_param(max_instances, uint, 0644);
static atomic_t opened = ATOMIC_INIT(0);
static int opened_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&opened));
}
static const struct kernel_param_ops opened_ops = { .get = opened_get };
module_param_cb(opened, &opened_ops, NULL, 0444);
MODULE_PARM_DESC(opened, "how often it is open now");
static unsigned int no_import;
module_param(no_import, uint, 0644);
MODULE_PARM_DESC(no_import, "1: buffers of other devices (dmabuf) are not taken; 2: nor then, but it says that they would be");

struct venc_dev {
	struct v4l2_device v4l2_dev;
	struct video_device vfd;
	struct mutex lock;
	struct v4l2_m2m_dev *m2m;
	struct media_device mdev;
};

struct venc_ctx {
	struct v4l2_fh fh;
	struct venc_dev *dev;
	struct v4l2_ctrl_handler hdl;
	struct work_struct work;
	struct mutex lock;
	bool abort;			/* streaming is being stopped */
	u32 fourcc, width, height, vis_w, vis_h, stride, cap_size, cap_req;
	u32 colorspace, xfer, ycbcr, quant;
	struct v4l2_fract tpf;
	u32 out_seq, cap_seq;
	/* controls */
	u32 bitrate, gop, vbr_off, level_idc;
	bool force_key;
	/* codec state */
	u32 mbw, mbh, frame_num, idr_id, since_key, rr;
	s64 budget;
	u8 *src, *rec, *pcm;		/* I420 padded to macroblocks; pcm: map of PCM MBs */
	size_t psize;
};

#define to_ctx(f) container_of((f)->private_data, struct venc_ctx, fh)

/* ---------------------------------------------------------------- bits */
struct bw { u8 *p, *end; u32 acc; int n, z; bool ovf; };

static void put_byte(struct bw *b, u8 v)
{
	if (b->z >= 2 && v <= 3) {
		if (b->p < b->end) *b->p++ = 3; else b->ovf = true;
		b->z = 0;
	}
	if (b->p < b->end) *b->p++ = v; else b->ovf = true;
	b->z = v ? 0 : b->z + 1;
}
static void put(struct bw *b, int n, u32 v)
{
	while (n--) {
		b->acc = (b->acc << 1) | ((v >> n) & 1);
		if (++b->n == 8) { put_byte(b, b->acc & 0xff); b->acc = 0; b->n = 0; }
	}
}
static void ue(struct bw *b, u32 v)
{
	int l = fls(v + 1);

	put(b, l - 1, 0);
	put(b, l, v + 1);
}
static void align0(struct bw *b) { while (b->n) put(b, 1, 0); }
static void trail(struct bw *b) { put(b, 1, 1); align0(b); }
static void nal(struct bw *b, u8 hdr)
{
	static const u8 sc[4] = { 0, 0, 0, 1 };

	if (b->p + 5 > b->end) { b->ovf = true; return; }
	memcpy(b->p, sc, 4); b->p[4] = hdr; b->p += 5;
	b->z = 0; b->n = 0; b->acc = 0;
}

static void put_headers(struct venc_ctx *c, struct bw *b)
{
	u32 cw = c->mbw * 16 - c->vis_w, ch = c->mbh * 16 - c->vis_h;

	nal(b, 0x67);
	put(b, 8, 66); put(b, 8, 0xc0); put(b, 8, c->level_idc);
	ue(b, 0); ue(b, 4); ue(b, 2); ue(b, 1); put(b, 1, 0);
	ue(b, c->mbw - 1); ue(b, c->mbh - 1);
	put(b, 1, 1); put(b, 1, 1);
	put(b, 1, cw || ch);
	if (cw || ch) { ue(b, 0); ue(b, cw / 2); ue(b, 0); ue(b, ch / 2); }
	put(b, 1, 0);
	trail(b);
	nal(b, 0x68);
	ue(b, 0); ue(b, 0); put(b, 1, 0); put(b, 1, 0); ue(b, 0); ue(b, 0); ue(b, 0);
	put(b, 1, 0); put(b, 2, 0); ue(b, 0); ue(b, 0); ue(b, 0);
	put(b, 1, 1); put(b, 1, 0); put(b, 1, 0);
	trail(b);
}

/* ---------------------------------------------------------------- pixels */
static void load_frame(struct venc_ctx *c, const u8 *in)
{
	u32 pw = c->mbw * 16, ph = c->mbh * 16, x, y;
	u8 *Y = c->src, *U = Y + pw * ph, *V = U + pw * ph / 4;
	const u8 *uv = in + c->stride * c->height;
	bool semi = c->fourcc != V4L2_PIX_FMT_YUV420;
	u32 cs = semi ? c->stride : c->stride / 2;

	for (y = 0; y < ph; y++) {
		memcpy(Y + y * pw, in + min(y, c->vis_h - 1) * c->stride, c->vis_w);
		memset(Y + y * pw + c->vis_w, Y[y * pw + c->vis_w - 1], pw - c->vis_w);
	}
	for (y = 0; y < ph / 2; y++) {
		u32 sy = min(y, c->vis_h / 2 - 1), vw = c->vis_w / 2;
		u8 *u = U + y * pw / 2, *v = V + y * pw / 2;

		if (semi) {
			const u8 *s = uv + sy * cs;
			int o = c->fourcc == V4L2_PIX_FMT_NV21;

			for (x = 0; x < vw; x++) { u[x] = s[2 * x + o]; v[x] = s[2 * x + 1 - o]; }
		} else {
			memcpy(u, uv + sy * cs, vw);
			memcpy(v, uv + cs * (c->height / 2) + sy * cs, vw);
		}
		memset(u + vw, u[vw - 1], pw / 2 - vw);
		memset(v + vw, v[vw - 1], pw / 2 - vw);
	}
}

static bool mb_same(struct venc_ctx *c, u32 mx, u32 my)
{
	u32 pw = c->mbw * 16, n = pw * c->mbh * 16, y, o = my * 16 * pw + mx * 16;

	for (y = 0; y < 16; y++)
		if (memcmp(c->src + o + y * pw, c->rec + o + y * pw, 16))
			return false;
	o = n + my * 8 * pw / 2 + mx * 8;
	for (y = 0; y < 8; y++)
		if (memcmp(c->src + o + y * pw / 2, c->rec + o + y * pw / 2, 8) ||
		    memcmp(c->src + o + n / 4 + y * pw / 2, c->rec + o + n / 4 + y * pw / 2, 8))
			return false;
	return true;
}

static void put_pcm(struct venc_ctx *c, struct bw *b, u32 mx, u32 my)
{
	u32 pw = c->mbw * 16, n = pw * c->mbh * 16, y, x, p, o = my * 16 * pw + mx * 16;

	align0(b);
	for (y = 0; y < 16; y++) {
		for (x = 0; x < 16; x++)
			put_byte(b, c->src[o + y * pw + x]);
		memcpy(c->rec + o + y * pw, c->src + o + y * pw, 16);
	}
	for (p = 0; p < 2; p++) {
		o = n + p * n / 4 + my * 8 * pw / 2 + mx * 8;
		for (y = 0; y < 8; y++) {
			for (x = 0; x < 8; x++)
				put_byte(b, c->src[o + y * pw / 2 + x]);
			memcpy(c->rec + o + y * pw / 2, c->src + o + y * pw / 2, 8);
		}
	}
}

static u32 sum_h(const u8 *p, int n) { u32 s = 0; while (n--) s += *p++; return s; }
static u32 sum_v(const u8 *p, int n, int st) { u32 s = 0; while (n--) { s += *p; p += st; } return s; }

/* reconstruct Intra16x16 DC (and chroma DC) prediction with no residual */
static void rec_dc(struct venc_ctx *c, u32 mx, u32 my)
{
	u32 pw = c->mbw * 16, n = pw * c->mbh * 16, y, p, q, v;
	u8 *d = c->rec + my * 16 * pw + mx * 16;

	if (mx && my) v = (sum_h(d - pw, 16) + sum_v(d - 1, 16, pw) + 16) >> 5;
	else if (my) v = (sum_h(d - pw, 16) + 8) >> 4;
	else if (mx) v = (sum_v(d - 1, 16, pw) + 8) >> 4;
	else v = 128;
	for (y = 0; y < 16; y++) memset(d + y * pw, v, 16);
	for (p = 0; p < 2; p++) {
		u32 cw = pw / 2;

		d = c->rec + n + p * n / 4 + my * 8 * cw + mx * 8;
		for (q = 0; q < 4; q++) {
			u32 bx = (q & 1) * 4, by = (q >> 1) * 4;
			const u8 *top = d - cw + bx, *left = d - 1 + by * cw;
			bool t = my, l = mx;

			if (bx > by && t) l = false;		/* block (1,0): top first */
			else if (by > bx && l) t = false;	/* block (0,1): left first */
			if (t && l) v = (sum_h(top, 4) + sum_v(left, 4, cw) + 4) >> 3;
			else if (t) v = (sum_h(top, 4) + 2) >> 2;
			else if (l) v = (sum_v(left, 4, cw) + 2) >> 2;
			else v = 128;
			for (y = 0; y < 4; y++) memset(d + (by + y) * cw + bx, v, 4);
		}
	}
}

static u32 encode(struct venc_ctx *c, u8 *out, u32 size, bool *key)
{
	struct bw b = { .p = out, .end = out + size };
	u32 nmb = c->mbw * c->mbh, i, skip = 0, fps_n = c->tpf.denominator, fps_d = c->tpf.numerator;
	bool idr = !c->since_key || c->force_key || (c->gop && c->since_key >= c->gop);
	s64 per = 0, avail = S64_MAX;
	u32 npcm = nmb;

	if (c->bitrate && !c->vbr_off) {
		per = div_u64((u64)c->bitrate * fps_d, 8 * fps_n);
		/* up to half a second of saved-up bits */
		c->budget = min_t(s64, c->budget + per, (s64)c->bitrate / 16);
		avail = max_t(s64, c->budget - nmb / 3 - 64, 0);
		npcm = min_t(s64, div_s64(avail, 390), nmb);
	}
	memset(c->pcm, 0, nmb);
	if (idr) {
		c->force_key = false; c->since_key = 0; c->frame_num = 0;
		put_headers(c, &b);
		for (i = 0; i < npcm; i++)	/* spread evenly */
			c->pcm[div_u64((u64)i * nmb, npcm)] = 1;
	} else {
		u32 left = npcm, k, first = c->rr;

		c->frame_num = (c->frame_num + 1) & 255;
		for (i = 0; i < nmb && left; i++) {
			k = (first + i) % nmb;
			if (!mb_same(c, k % c->mbw, k / c->mbw)) {
				c->pcm[k] = 1; left--; c->rr = (k + 1) % nmb;
			}
		}
	}
	nal(&b, idr ? 0x65 : 0x61);
	ue(&b, 0); ue(&b, idr ? 7 : 5); ue(&b, 0); put(&b, 8, c->frame_num);
	if (idr) { ue(&b, c->idr_id++ & 0xff); put(&b, 2, 0); }
	else put(&b, 3, 0);
	ue(&b, 0); ue(&b, 1);
	for (i = 0; i < nmb; i++) {
		u32 mx = i % c->mbw, my = i / c->mbw;

		if (c->pcm[i]) {
			if (!idr) { ue(&b, skip); skip = 0; }
			ue(&b, idr ? 25 : 30);
			put_pcm(c, &b, mx, my);
		} else if (idr) {
			u32 na = mx ? (c->pcm[i - 1] ? 16 : 0) : 0;
			u32 nb = my ? (c->pcm[i - c->mbw] ? 16 : 0) : 0;
			u32 nc = mx && my ? (na + nb + 1) >> 1 : na + nb;

			ue(&b, 3); ue(&b, 0); ue(&b, 0);	/* I16x16 DC, chroma DC, qp_delta 0 */
			if (nc < 2) put(&b, 1, 1);
			else if (nc < 4) put(&b, 2, 3);
			else if (nc < 8) put(&b, 4, 15);
			else put(&b, 6, 3);
			rec_dc(c, mx, my);
		} else {
			skip++;
		}
	}
	if (!idr && skip) ue(&b, skip);
	trail(&b);
	if (c->bitrate && !c->vbr_off) c->budget -= b.p - out;
	c->since_key++;
	*key = idr;
	return b.ovf ? 0 : b.p - out;
}

/* ---------------------------------------------------------------- m2m */
static void set_geometry(struct venc_ctx *c)
{
	c->stride = ALIGN(c->width, 2);
	c->mbw = DIV_ROUND_UP(c->width, 16); c->mbh = DIV_ROUND_UP(c->height, 16);
	c->vis_w = c->width; c->vis_h = c->height;
	c->cap_size = max(c->mbw * c->mbh * 600 + 4096, c->cap_req);
}

static const struct v4l2_event eos_event = { .type = V4L2_EVENT_EOS };

static void venc_work(struct work_struct *w)
{
	struct venc_ctx *c = container_of(w, struct venc_ctx, work);
	struct vb2_v4l2_buffer *s, *d;
	u32 n = 0;
	bool key = false, fail = false;

	while (READ_ONCE(hang) > (READ_ONCE(c->abort) ? 1 : 0)) msleep(20);
	if (latency_us) usleep_range(latency_us, latency_us + 100);
	s = v4l2_m2m_next_src_buf(c->fh.m2m_ctx);
	d = v4l2_m2m_next_dst_buf(c->fh.m2m_ctx);
	if (!s || !d) goto out;
	if (fail_frames) { fail = true; if (fail_frames > 0) fail_frames--; }
	mutex_lock(&c->lock);
	if (!fail) {
		load_frame(c, vb2_plane_vaddr(&s->vb2_buf, 0));
		n = encode(c, vb2_plane_vaddr(&d->vb2_buf, 0), vb2_plane_size(&d->vb2_buf, 0), &key);
	}
	mutex_unlock(&c->lock);
	s->sequence = c->out_seq++;
	d->sequence = c->cap_seq++;
	v4l2_m2m_buf_copy_metadata(s, d, true);
	d->field = V4L2_FIELD_NONE;
	d->flags &= ~(V4L2_BUF_FLAG_KEYFRAME | V4L2_BUF_FLAG_PFRAME | V4L2_BUF_FLAG_BFRAME | V4L2_BUF_FLAG_LAST);
	d->flags |= key ? V4L2_BUF_FLAG_KEYFRAME : V4L2_BUF_FLAG_PFRAME;
	vb2_set_plane_payload(&d->vb2_buf, 0, n);
	if (v4l2_m2m_is_last_draining_src_buf(c->fh.m2m_ctx, s)) {
		d->flags |= V4L2_BUF_FLAG_LAST;
		v4l2_m2m_mark_stopped(c->fh.m2m_ctx);
		v4l2_event_queue_fh(&c->fh, &eos_event);
	}
	v4l2_m2m_src_buf_remove(c->fh.m2m_ctx);
	v4l2_m2m_dst_buf_remove(c->fh.m2m_ctx);
	v4l2_m2m_buf_done(s, fail ? VB2_BUF_STATE_ERROR : VB2_BUF_STATE_DONE);
	v4l2_m2m_buf_done(d, (fail || !n) ? VB2_BUF_STATE_ERROR : VB2_BUF_STATE_DONE);
out:
	v4l2_m2m_job_finish(c->dev->m2m, c->fh.m2m_ctx);
}

static void venc_run(void *p) { struct venc_ctx *c = p; schedule_work(&c->work); }
static void venc_abort(void *p) { struct venc_ctx *c = p; WRITE_ONCE(c->abort, true); }
static int venc_ready(void *p)
{
	struct venc_ctx *c = p;

	return !v4l2_m2m_has_stopped(c->fh.m2m_ctx);
}
static const struct v4l2_m2m_ops m2m_ops = { .device_run = venc_run, .job_ready = venc_ready, .job_abort = venc_abort };

static int q_setup(struct vb2_queue *q, unsigned int *nb, unsigned int *np, unsigned int sizes[], struct device *a[])
{
	struct venc_ctx *c = vb2_get_drv_priv(q);
	u32 sz = V4L2_TYPE_IS_OUTPUT(q->type) ? c->stride * c->height * 3 / 2 : c->cap_size;

	if (*np)
		return sizes[0] < sz ? -EINVAL : 0;
	*np = 1; sizes[0] = sz;
	return 0;
}
static int b_validate(struct vb2_buffer *vb) { to_vb2_v4l2_buffer(vb)->field = V4L2_FIELD_NONE; return 0; }
static int b_prepare(struct vb2_buffer *vb)
{
	struct venc_ctx *c = vb2_get_drv_priv(vb->vb2_queue);

	if (no_import == 2 && vb->memory == VB2_MEMORY_DMABUF)
		return -EINVAL;
	if (V4L2_TYPE_IS_OUTPUT(vb->type) && vb2_plane_size(vb, 0) < c->stride * c->height * 3 / 2)
		return -EINVAL;
	return 0;
}
static void b_queue(struct vb2_buffer *vb)
{
	struct vb2_v4l2_buffer *v = to_vb2_v4l2_buffer(vb);
	struct venc_ctx *c = vb2_get_drv_priv(vb->vb2_queue);

	if (V4L2_TYPE_IS_CAPTURE(vb->type) && vb2_is_streaming(vb->vb2_queue) &&
	    v4l2_m2m_dst_buf_is_last(c->fh.m2m_ctx)) {
		v->sequence = c->cap_seq++;
		v4l2_m2m_last_buffer_done(c->fh.m2m_ctx, v);
		v4l2_event_queue_fh(&c->fh, &eos_event);
		return;
	}
	v4l2_m2m_buf_queue(c->fh.m2m_ctx, v);
}
static int start(struct vb2_queue *q, unsigned int count)
{
	struct venc_ctx *c = vb2_get_drv_priv(q);
	size_t n;

	v4l2_m2m_update_start_streaming_state(c->fh.m2m_ctx, q);
	WRITE_ONCE(c->abort, false);
	if (V4L2_TYPE_IS_CAPTURE(q->type)) { c->cap_seq = 0; return 0; }
	c->out_seq = 0;
	n = c->mbw * c->mbh * 384;
	vfree(c->src); vfree(c->rec); vfree(c->pcm);
	c->src = vzalloc(n); c->rec = vzalloc(n); c->pcm = vzalloc(c->mbw * c->mbh);
	c->since_key = 0; c->rr = 0; c->budget = c->bitrate / 16;
	if (!c->src || !c->rec || !c->pcm) {
		struct vb2_v4l2_buffer *v;

		while ((v = v4l2_m2m_src_buf_remove(c->fh.m2m_ctx)))
			v4l2_m2m_buf_done(v, VB2_BUF_STATE_QUEUED);
		return -ENOMEM;
	}
	return 0;
}
static void stop(struct vb2_queue *q)
{
	struct venc_ctx *c = vb2_get_drv_priv(q);
	struct vb2_v4l2_buffer *v;

	cancel_work_sync(&c->work);
	v4l2_m2m_update_stop_streaming_state(c->fh.m2m_ctx, q);
	while ((v = V4L2_TYPE_IS_OUTPUT(q->type) ? v4l2_m2m_src_buf_remove(c->fh.m2m_ctx) : v4l2_m2m_dst_buf_remove(c->fh.m2m_ctx)))
		v4l2_m2m_buf_done(v, VB2_BUF_STATE_ERROR);
	if (V4L2_TYPE_IS_OUTPUT(q->type) && v4l2_m2m_has_stopped(c->fh.m2m_ctx))
		v4l2_event_queue_fh(&c->fh, &eos_event);
}
static const struct vb2_ops qops = {
	.queue_setup = q_setup, .buf_out_validate = b_validate, .buf_prepare = b_prepare, .buf_queue = b_queue,
	.start_streaming = start, .stop_streaming = stop,
	.wait_prepare = vb2_ops_wait_prepare, .wait_finish = vb2_ops_wait_finish,
};
static int queue_init(void *priv, struct vb2_queue *src, struct vb2_queue *dst)
{
	struct venc_ctx *c = priv;
	struct vb2_queue *q[2] = { src, dst };
	int i, r;

	for (i = 0; i < 2; i++) {
		q[i]->type = i ? V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE : V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE;
		q[i]->io_modes = no_import == 1 ? VB2_MMAP : VB2_MMAP | VB2_DMABUF;
		q[i]->drv_priv = c;
		q[i]->buf_struct_size = sizeof(struct v4l2_m2m_buffer);
		q[i]->ops = &qops;
		q[i]->mem_ops = &vb2_vmalloc_memops;
		q[i]->timestamp_flags = V4L2_BUF_FLAG_TIMESTAMP_COPY;
		q[i]->lock = &c->dev->lock;
		r = vb2_queue_init(q[i]);
		if (r) return r;
	}
	return 0;
}

/* ---------------------------------------------------------------- ioctls */
static const u32 raw[] = { V4L2_PIX_FMT_NV12, V4L2_PIX_FMT_YUV420, V4L2_PIX_FMT_NV21 };

static int querycap(struct file *f, void *p, struct v4l2_capability *cap)
{
	strscpy(cap->driver, NAME, sizeof(cap->driver));
	strscpy(cap->card, "Virtual H.264 encoder", sizeof(cap->card));
	return 0;
}
static int enum_cap(struct file *f, void *p, struct v4l2_fmtdesc *d)
{
	if (d->index) return -EINVAL;
	d->pixelformat = V4L2_PIX_FMT_H264;
	return 0;
}
static int enum_out(struct file *f, void *p, struct v4l2_fmtdesc *d)
{
	if (d->index >= ARRAY_SIZE(raw)) return -EINVAL;
	d->pixelformat = raw[d->index];
	return 0;
}
static int enum_sizes(struct file *f, void *p, struct v4l2_frmsizeenum *s)
{
	int i;

	if (s->index) return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(raw) && raw[i] != s->pixel_format; i++) ;
	if (i == ARRAY_SIZE(raw) && s->pixel_format != V4L2_PIX_FMT_H264) return -EINVAL;
	s->type = V4L2_FRMSIZE_TYPE_STEPWISE;
	s->stepwise = (struct v4l2_frmsize_stepwise){ 32, max_width, 2, 32, max_height, 2 };
	return 0;
}
static int enum_ivals(struct file *f, void *p, struct v4l2_frmivalenum *e)
{
	if (e->index || e->width < 32 || e->width > max_width || e->width & 1 || e->height < 32 || e->height > max_height || e->height & 1)
		return -EINVAL;
	e->type = V4L2_FRMIVAL_TYPE_CONTINUOUS;
	e->stepwise.min = (struct v4l2_fract){ 1, 120 };
	e->stepwise.max = (struct v4l2_fract){ 1, 1 };
	e->stepwise.step = (struct v4l2_fract){ 1, 1 };
	return 0;
}
static void fill(struct venc_ctx *c, struct v4l2_pix_format_mplane *m, bool out, u32 fourcc, u32 w, u32 h)
{
	u32 want = m->plane_fmt[0].sizeimage;

	m->width = w; m->height = h; m->field = V4L2_FIELD_NONE; m->num_planes = 1; m->flags = 0;
	m->pixelformat = out ? fourcc : V4L2_PIX_FMT_H264;
	memset(m->reserved, 0, sizeof(m->reserved));
	memset(&m->plane_fmt[0], 0, sizeof(m->plane_fmt[0]));
	if (out) {
		m->plane_fmt[0].bytesperline = w;
		m->plane_fmt[0].sizeimage = w * h * 3 / 2;
	} else {
		m->plane_fmt[0].sizeimage = max(DIV_ROUND_UP(w, 16) * DIV_ROUND_UP(h, 16) * 600 + 4096, want);
	}
}
static int g_fmt(struct file *f, void *p, struct v4l2_format *fm)
{
	struct venc_ctx *c = to_ctx(f);

	fm->fmt.pix_mp.plane_fmt[0].sizeimage = c->cap_req;
	fill(c, &fm->fmt.pix_mp, V4L2_TYPE_IS_OUTPUT(fm->type), c->fourcc, c->width, c->height);
	fm->fmt.pix_mp.colorspace = c->colorspace; fm->fmt.pix_mp.xfer_func = c->xfer;
	fm->fmt.pix_mp.ycbcr_enc = c->ycbcr; fm->fmt.pix_mp.quantization = c->quant;
	return 0;
}
static int try_fmt(struct file *f, void *p, struct v4l2_format *fm)
{
	struct venc_ctx *c = to_ctx(f);
	struct v4l2_pix_format_mplane *m = &fm->fmt.pix_mp;
	bool out = V4L2_TYPE_IS_OUTPUT(fm->type);
	u32 fc = raw[0];
	int i;

	for (i = 0; i < ARRAY_SIZE(raw); i++)
		if (raw[i] == m->pixelformat) fc = raw[i];
	if (!out) { m->width = c->width; m->height = c->height;
		m->colorspace = c->colorspace; m->xfer_func = c->xfer; m->ycbcr_enc = c->ycbcr; m->quantization = c->quant; }
	fill(c, m, out, fc, clamp(m->width & ~1u, 32u, max_width), clamp(m->height & ~1u, 32u, max_height));
	if (m->colorspace == V4L2_COLORSPACE_DEFAULT) m->colorspace = V4L2_COLORSPACE_REC709;
	return 0;
}
static int s_fmt(struct file *f, void *p, struct v4l2_format *fm)
{
	struct venc_ctx *c = to_ctx(f);
	struct vb2_queue *q = v4l2_m2m_get_vq(c->fh.m2m_ctx, fm->type);
	struct v4l2_pix_format_mplane *m = &fm->fmt.pix_mp;

	try_fmt(f, p, fm);
	if (vb2_is_busy(q)) return -EBUSY;
	if (V4L2_TYPE_IS_OUTPUT(fm->type)) {
		c->fourcc = m->pixelformat; c->width = m->width; c->height = m->height;
		c->colorspace = m->colorspace; c->xfer = m->xfer_func; c->ycbcr = m->ycbcr_enc; c->quant = m->quantization;
	} else {
		c->cap_req = m->plane_fmt[0].sizeimage;
	}
	set_geometry(c);
	return 0;
}
static int g_parm(struct file *f, void *p, struct v4l2_streamparm *a)
{
	struct venc_ctx *c = to_ctx(f);

	if (V4L2_TYPE_IS_OUTPUT(a->type)) {
		a->parm.output.capability = V4L2_CAP_TIMEPERFRAME; a->parm.output.timeperframe = c->tpf;
	} else {
		a->parm.capture.capability = V4L2_CAP_TIMEPERFRAME; a->parm.capture.timeperframe = c->tpf;
	}
	return 0;
}
static int s_parm(struct file *f, void *p, struct v4l2_streamparm *a)
{
	struct venc_ctx *c = to_ctx(f);
	struct v4l2_fract *t = V4L2_TYPE_IS_OUTPUT(a->type) ? &a->parm.output.timeperframe : &a->parm.capture.timeperframe;

	if (!t->numerator || !t->denominator) *t = (struct v4l2_fract){ 1, 30 };
	c->tpf = *t;
	return g_parm(f, p, a);
}
static int g_sel(struct file *f, void *p, struct v4l2_selection *s)
{
	struct venc_ctx *c = to_ctx(f);

	if (s->type != V4L2_BUF_TYPE_VIDEO_OUTPUT) return -EINVAL;
	s->r = (struct v4l2_rect){ 0, 0, c->width, c->height };
	if (s->target == V4L2_SEL_TGT_CROP) { s->r.width = c->vis_w; s->r.height = c->vis_h; return 0; }
	return s->target == V4L2_SEL_TGT_CROP_DEFAULT || s->target == V4L2_SEL_TGT_CROP_BOUNDS ? 0 : -EINVAL;
}
static int s_sel(struct file *f, void *p, struct v4l2_selection *s)
{
	struct venc_ctx *c = to_ctx(f);

	if (s->type != V4L2_BUF_TYPE_VIDEO_OUTPUT || s->target != V4L2_SEL_TGT_CROP) return -EINVAL;
	s->r.left = s->r.top = 0;
	c->vis_w = s->r.width = clamp(s->r.width & ~1u, 16u, c->width);
	c->vis_h = s->r.height = clamp(s->r.height & ~1u, 16u, c->height);
	c->mbw = DIV_ROUND_UP(c->vis_w, 16); c->mbh = DIV_ROUND_UP(c->vis_h, 16);
	return 0;
}
static int sub_event(struct v4l2_fh *fh, const struct v4l2_event_subscription *s)
{
	return s->type == V4L2_EVENT_EOS ? v4l2_event_subscribe(fh, s, 0, NULL) : v4l2_ctrl_subscribe_event(fh, s);
}
static int enc_cmd(struct file *f, void *p, struct v4l2_encoder_cmd *e)
{
	struct venc_ctx *c = to_ctx(f);
	int r = v4l2_m2m_ioctl_try_encoder_cmd(f, p, e);

	if (r) return r;
	if (!vb2_is_streaming(v4l2_m2m_get_src_vq(c->fh.m2m_ctx)) || !vb2_is_streaming(v4l2_m2m_get_dst_vq(c->fh.m2m_ctx)))
		return 0;
	r = v4l2_m2m_ioctl_encoder_cmd(f, p, e);
	if (r < 0) return r;
	if (e->cmd == V4L2_ENC_CMD_STOP && v4l2_m2m_has_stopped(c->fh.m2m_ctx))
		v4l2_event_queue_fh(&c->fh, &eos_event);
	if (e->cmd == V4L2_ENC_CMD_START && v4l2_m2m_has_stopped(c->fh.m2m_ctx))
		vb2_clear_last_buffer_dequeued(&c->fh.m2m_ctx->cap_q_ctx.q);
	return 0;
}
static const struct v4l2_ioctl_ops iops = {
	.vidioc_querycap = querycap,
	.vidioc_enum_fmt_vid_cap = enum_cap, .vidioc_enum_fmt_vid_out = enum_out,
	.vidioc_enum_framesizes = enum_sizes, .vidioc_enum_frameintervals = enum_ivals,
	.vidioc_g_fmt_vid_cap_mplane = g_fmt, .vidioc_try_fmt_vid_cap_mplane = try_fmt, .vidioc_s_fmt_vid_cap_mplane = s_fmt,
	.vidioc_g_fmt_vid_out_mplane = g_fmt, .vidioc_try_fmt_vid_out_mplane = try_fmt, .vidioc_s_fmt_vid_out_mplane = s_fmt,
	.vidioc_g_parm = g_parm, .vidioc_s_parm = s_parm,
	.vidioc_g_selection = g_sel, .vidioc_s_selection = s_sel,
	.vidioc_reqbufs = v4l2_m2m_ioctl_reqbufs, .vidioc_querybuf = v4l2_m2m_ioctl_querybuf,
	.vidioc_qbuf = v4l2_m2m_ioctl_qbuf, .vidioc_dqbuf = v4l2_m2m_ioctl_dqbuf,
	.vidioc_prepare_buf = v4l2_m2m_ioctl_prepare_buf, .vidioc_create_bufs = v4l2_m2m_ioctl_create_bufs,
	.vidioc_expbuf = v4l2_m2m_ioctl_expbuf,
	.vidioc_streamon = v4l2_m2m_ioctl_streamon, .vidioc_streamoff = v4l2_m2m_ioctl_streamoff,
	.vidioc_try_encoder_cmd = v4l2_m2m_ioctl_try_encoder_cmd, .vidioc_encoder_cmd = enc_cmd,
	.vidioc_subscribe_event = sub_event, .vidioc_unsubscribe_event = v4l2_event_unsubscribe,
};

static const u8 level_idc[] = { 10, 9, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42 };	/* by enum v4l2_mpeg_video_h264_level */

static int s_ctrl(struct v4l2_ctrl *t)
{
	struct venc_ctx *c = container_of(t->handler, struct venc_ctx, hdl);

	switch (t->id) {
	case V4L2_CID_MPEG_VIDEO_BITRATE: c->bitrate = t->val; break;
	case V4L2_CID_MPEG_VIDEO_BITRATE_MODE: c->vbr_off = t->val == V4L2_MPEG_VIDEO_BITRATE_MODE_CQ; break;
	case V4L2_CID_MPEG_VIDEO_GOP_SIZE:
	case V4L2_CID_MPEG_VIDEO_H264_I_PERIOD: c->gop = t->val; break;
	case V4L2_CID_MPEG_VIDEO_H264_LEVEL: c->level_idc = level_idc[t->val]; break;
	case V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME: c->force_key = true; break;
	case V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER: break;
	}
	return 0;
}
static const struct v4l2_ctrl_ops cops = { .s_ctrl = s_ctrl };

static int venc_open(struct file *f)
{
	struct venc_dev *d = video_drvdata(f);
	struct venc_ctx *c;
	struct v4l2_ctrl_handler *h;
	int r;

	if (atomic_inc_return(&opened) > max_instances) { atomic_dec(&opened); return -EBUSY; }
	c = kzalloc(sizeof(*c), GFP_KERNEL);
	if (!c) { atomic_dec(&opened); return -ENOMEM; }
	c->dev = d; mutex_init(&c->lock); INIT_WORK(&c->work, venc_work);
	c->fourcc = raw[0]; c->width = 640; c->height = 480; c->colorspace = V4L2_COLORSPACE_REC709;
	c->tpf = (struct v4l2_fract){ 1, 30 };
	set_geometry(c);
	v4l2_fh_init(&c->fh, &d->vfd);
	f->private_data = &c->fh;
	h = &c->hdl;
	v4l2_ctrl_handler_init(h, 12);
	v4l2_ctrl_new_std(h, &cops, V4L2_CID_MPEG_VIDEO_BITRATE, 10000, 100000000, 1000, 2000000);
	v4l2_ctrl_new_std_menu(h, &cops, V4L2_CID_MPEG_VIDEO_BITRATE_MODE, V4L2_MPEG_VIDEO_BITRATE_MODE_CQ, 0, V4L2_MPEG_VIDEO_BITRATE_MODE_CBR);
	v4l2_ctrl_new_std(h, &cops, V4L2_CID_MPEG_VIDEO_GOP_SIZE, 0, 600, 1, 30);
	v4l2_ctrl_new_std(h, &cops, V4L2_CID_MPEG_VIDEO_H264_I_PERIOD, 0, 600, 1, 30);
	v4l2_ctrl_new_std(h, &cops, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 0, 0, 0, 0);
	v4l2_ctrl_new_std(h, &cops, V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER, 0, 1, 1, 1);
	v4l2_ctrl_new_std_menu(h, &cops, V4L2_CID_MPEG_VIDEO_HEADER_MODE, V4L2_MPEG_VIDEO_HEADER_MODE_JOINED_WITH_1ST_FRAME,
			       1 << V4L2_MPEG_VIDEO_HEADER_MODE_SEPARATE, V4L2_MPEG_VIDEO_HEADER_MODE_JOINED_WITH_1ST_FRAME);
	v4l2_ctrl_new_std_menu(h, &cops, V4L2_CID_MPEG_VIDEO_H264_PROFILE, V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE,
			       ~((1 << V4L2_MPEG_VIDEO_H264_PROFILE_BASELINE) | (1 << V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE)),
			       V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE);
	v4l2_ctrl_new_std_menu(h, &cops, V4L2_CID_MPEG_VIDEO_H264_LEVEL, V4L2_MPEG_VIDEO_H264_LEVEL_4_2, 0, V4L2_MPEG_VIDEO_H264_LEVEL_4_0);
	v4l2_ctrl_new_std(h, &cops, V4L2_CID_MIN_BUFFERS_FOR_OUTPUT, 1, 1, 1, 1);
	c->fh.ctrl_handler = h;
	r = h->error;
	if (r) goto err;
	v4l2_ctrl_handler_setup(h);
	c->force_key = false;
	c->fh.m2m_ctx = v4l2_m2m_ctx_init(d->m2m, c, queue_init);
	if (IS_ERR(c->fh.m2m_ctx)) { r = PTR_ERR(c->fh.m2m_ctx); goto err; }
	v4l2_fh_add(&c->fh);
	return 0;
err:
	v4l2_ctrl_handler_free(h); v4l2_fh_exit(&c->fh); kfree(c); atomic_dec(&opened);
	return r;
}
static int venc_release(struct file *f)
{
	struct venc_dev *d = video_drvdata(f);
	struct venc_ctx *c = to_ctx(f);

	v4l2_fh_del(&c->fh); v4l2_fh_exit(&c->fh);
	v4l2_ctrl_handler_free(&c->hdl);
	mutex_lock(&d->lock);
	v4l2_m2m_ctx_release(c->fh.m2m_ctx);
	mutex_unlock(&d->lock);
	vfree(c->src); vfree(c->rec); vfree(c->pcm);
	kfree(c); atomic_dec(&opened);
	return 0;
}
static const struct v4l2_file_operations fops = {
	.owner = THIS_MODULE, .open = venc_open, .release = venc_release,
	.poll = v4l2_m2m_fop_poll, .mmap = v4l2_m2m_fop_mmap, .unlocked_ioctl = video_ioctl2,
};

static int probe(struct platform_device *pdev)
{
	struct venc_dev *d = devm_kzalloc(&pdev->dev, sizeof(*d), GFP_KERNEL);
	int r;

	if (!d) return -ENOMEM;
	mutex_init(&d->lock);
	d->mdev.dev = &pdev->dev;
	strscpy(d->mdev.model, NAME, sizeof(d->mdev.model));
	strscpy(d->mdev.bus_info, "platform:" NAME, sizeof(d->mdev.bus_info));
	media_device_init(&d->mdev);
	d->v4l2_dev.mdev = &d->mdev;
	r = v4l2_device_register(&pdev->dev, &d->v4l2_dev);
	if (r) return r;
	d->m2m = v4l2_m2m_init(&m2m_ops);
	if (IS_ERR(d->m2m)) { v4l2_device_unregister(&d->v4l2_dev); return PTR_ERR(d->m2m); }
	strscpy(d->vfd.name, NAME, sizeof(d->vfd.name));
	d->vfd.fops = &fops; d->vfd.ioctl_ops = &iops; d->vfd.release = video_device_release_empty;
	d->vfd.lock = &d->lock; d->vfd.v4l2_dev = &d->v4l2_dev; d->vfd.vfl_dir = VFL_DIR_M2M;
	d->vfd.device_caps = V4L2_CAP_VIDEO_M2M_MPLANE | V4L2_CAP_STREAMING;
	video_set_drvdata(&d->vfd, d);
	r = video_register_device(&d->vfd, VFL_TYPE_VIDEO, -1);
	if (r) { v4l2_m2m_release(d->m2m); v4l2_device_unregister(&d->v4l2_dev); return r; }
	platform_set_drvdata(pdev, d);
	r = v4l2_m2m_register_media_controller(d->m2m, &d->vfd, MEDIA_ENT_F_PROC_VIDEO_ENCODER);
	if (!r) r = media_device_register(&d->mdev);
	if (r) v4l2_err(&d->v4l2_dev, "no media controller: %d\n", r);
	v4l2_info(&d->v4l2_dev, "registered as /dev/video%d\n", d->vfd.num);
	return 0;
}
static int remove(struct platform_device *pdev)
{
	struct venc_dev *d = platform_get_drvdata(pdev);

	media_device_unregister(&d->mdev);
	v4l2_m2m_unregister_media_controller(d->m2m);
	video_unregister_device(&d->vfd);
	media_device_cleanup(&d->mdev);
	v4l2_m2m_release(d->m2m);
	v4l2_device_unregister(&d->v4l2_dev);
	return 0;
}
static struct platform_driver drv = { .probe = probe, .remove = remove, .driver = { .name = NAME } };
static struct platform_device *pd;

static int __init init(void)
{
	int r = platform_driver_register(&drv);

	if (r) return r;
	pd = platform_device_register_simple(NAME, -1, NULL, 0);
	if (IS_ERR(pd)) { platform_driver_unregister(&drv); return PTR_ERR(pd); }
	return 0;
}
static void __exit fini(void) { platform_device_unregister(pd); platform_driver_unregister(&drv); }
module_init(init);
module_exit(fini);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Virtual stateful H.264 M2M encoder for tests");
