"""Packs the animated drawings of animations.txt, and adds the words of motions to the vocabulary.

    python3 training/prepare_animations.py DATA_FOLDER OUT [LIBRLOTTIE]

OUT is a folder made by prepare_data.py. It gets animations.tar (a WebP sheet with alpha for each drawing, 8 frames a
second), animations.json, eval_clips.jsonl and eval_animated.jsonl; vocabulary.txt grows at its end. LIBRLOTTIE is the
library's path where the system does not know it.
"""

import gzip
import io
import json
import math
import os
import sys
import tarfile

from PIL import Image

from captions import Captioner, words_of
from lottie import Lottie
from motions import FPS, MAX_FRAMES, motion_words, write_clip_prompts
from prepare_data import HERE, read_archive, read_objects, strip_variation

SIZE = 112
COLUMNS = 6
ARCHIVE = "noto_emoji_animated_lottie.tar.gz"


def read_list(path):
    """List of (name, label or None, verbs) of animations.txt."""
    result = []
    with open(path, encoding="utf-8") as file:
        text = " ".join(line.strip() for line in file if not line.startswith("#"))
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        label, _, verbs = entry.partition(":")
        label, _, name = label.strip().partition("=")
        extra = label.startswith("+")
        label = label.lstrip("+")
        result.append((name or label, label if extra else None, [verb.strip() for verb in verbs.split(",")]))
    return result


def frame_numbers(count, rate):
    """(frames to draw, whether they make a loop): the whole loop at FPS, or its first MAX_FRAMES frames."""
    length = max(2, round(count / rate * FPS))
    if length <= MAX_FRAMES:
        return [round(k * count / length) for k in range(length)], True
    return [round(k * rate / FPS) for k in range(MAX_FRAMES)], False


def sheet(animation, numbers):
    """WebP bytes of the frames in rows of COLUMNS."""
    rows = math.ceil(len(numbers) / COLUMNS)
    picture = Image.new("RGBA", (COLUMNS * SIZE, rows * SIZE))
    for index, number in enumerate(numbers):
        frame = animation.draw(number, 2 * SIZE).convert("RGBa").resize((SIZE, SIZE), Image.Resampling.BOX)
        picture.paste(frame.convert("RGBA"), (index % COLUMNS * SIZE, index // COLUMNS * SIZE))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80, method=4)
    return buffer.getvalue()


def main(source, out, library=None):
    with gzip.open(os.path.join(source, "emojibase_en.json.gz"), "rt", encoding="utf-8") as file:
        codes = {entry["label"]: strip_variation(entry["hexcode"]) for entry in json.load(file)}
    drawings = read_archive(os.path.join(source, ARCHIVE), lambda name: name.endswith(".json") and
                            strip_variation(os.path.basename(name)[:-5].replace("_", "-")) or None)
    labels = {name: label for label, name in read_objects(os.path.join(HERE, "objects.txt"))}
    objects = Captioner(out).objects
    entries, sheets = [], []
    for name, label, verbs in read_list(os.path.join(HERE, "animations.txt")):
        code = codes[label or labels[name]]
        animation = Lottie(drawings[code], code, library)
        numbers, loop = frame_numbers(animation.frames, animation.rate)
        sheets.append(sheet(animation, numbers))
        animation.close()
        entries.append({"name": name, "verbs": verbs, "object": -1 if label else objects.index(name),
                        "frames": len(numbers), "loop": loop})
    with tarfile.open(os.path.join(out, "animations.tar"), "w") as archive:
        for index, data in enumerate(sheets):
            info = tarfile.TarInfo(f"{index:03d}.webp")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with open(os.path.join(out, "animations.json"), "w", encoding="utf-8") as file:
        json.dump({"size": SIZE, "columns": COLUMNS, "animations": entries}, file, indent=1)

    known = Captioner(out).words
    words = motion_words([verb for entry in entries for verb in entry["verbs"]])
    words |= {word for entry in entries for word in words_of(entry["name"])}
    added = sorted(words - set(known))
    with open(os.path.join(out, "vocabulary.txt"), "a", encoding="utf-8") as file:
        file.writelines(word + "\n" for word in added)
    write_clip_prompts(Captioner(out), entries, out)
    size = os.path.getsize(os.path.join(out, "animations.tar")) / 2**20
    print(f"{len(entries)} animations, {sum(e['frames'] for e in entries)} frames, {size:.1f} MiB, "
          f"{len(added)} more words: {' '.join(added)}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
