// A worker, which the page's rules let be nothing but a file. Whoever draws with WebGL first waits until the process
// for the graphics card has begun, which takes long where software draws: that is done here, beside the page.

const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
const named = gl?.getExtension("WEBGL_debug_renderer_info");
postMessage(gl?.getParameter(named ? named.UNMASKED_RENDERER_WEBGL : gl.VERSION));
