"""Renders Lottie animations with librlottie (Debian: librlottie0-1) through ctypes."""

import ctypes
import ctypes.util

from PIL import Image


class Lottie:
    """One animation from its JSON text."""

    def __init__(self, text, key, library=None):
        self.library = ctypes.CDLL(library or ctypes.util.find_library("rlottie") or "librlottie.so.0-1")
        self.library.lottie_animation_from_data.restype = ctypes.c_void_p
        self.library.lottie_animation_from_data.argtypes = [ctypes.c_char_p] * 3
        self.library.lottie_animation_get_totalframe.restype = ctypes.c_size_t
        self.library.lottie_animation_get_totalframe.argtypes = [ctypes.c_void_p]
        self.library.lottie_animation_get_framerate.restype = ctypes.c_double
        self.library.lottie_animation_get_framerate.argtypes = [ctypes.c_void_p]
        self.library.lottie_animation_render.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p,
                                                         ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t]
        self.library.lottie_animation_destroy.argtypes = [ctypes.c_void_p]
        self.handle = self.library.lottie_animation_from_data(text, key.encode(), b"")
        if not self.handle:
            raise ValueError(f"librlottie cannot read the animation {key}")
        self.frames = self.library.lottie_animation_get_totalframe(self.handle)
        self.rate = self.library.lottie_animation_get_framerate(self.handle)

    def draw(self, frame, size):
        """Frame number `frame` as an RGBA picture of size x size, alpha not multiplied in."""
        buffer = ctypes.create_string_buffer(size * size * 4)
        self.library.lottie_animation_render(self.handle, min(frame, self.frames - 1), buffer, size, size, 4 * size)
        # rlottie writes premultiplied ARGB words: B, G, R, a in memory.
        return Image.frombytes("RGBa", (size, size), buffer.raw, "raw", "BGRa").convert("RGBA")

    def close(self):
        self.library.lottie_animation_destroy(self.handle)
        self.handle = None
