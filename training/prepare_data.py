"""Packs the pictures and words of the chosen objects for training.

    python3 training/prepare_data.py DATA_FOLDER OUT

DATA_FOLDER holds the archives named in training/README.md. OUT gets sprites.tar (WebP with alpha, one a style and
object), concepts.json, vocabulary.txt and the evaluation prompts. Needs rsvg-convert, numpy and Pillow.
"""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from captions import (BACKGROUNDS, COLORS, RELATIONS, STYLES, Captioner, template_words, words_of,
                      write_evaluation_prompts)

HERE = os.path.dirname(os.path.abspath(__file__))
RENDER_SIZE = 224
SVG_FOLDERS = {"noto": "noto", "flat": "twemoji", "blob": "blob"}
MAX_ALIASES = 5

# Everyday words that the data's tags miss or give to several objects.
EXTRA_ALIASES = {
    "car": ["automobile"], "airplane": ["plane", "aeroplane"], "bicycle": ["bike"], "cat": ["kitten", "kitty"],
    "dog": ["puppy"], "rabbit": ["bunny"], "red apple": ["apple"], "red heart": ["heart", "love"],
    "birthday cake": ["cake"], "hamburger": ["burger"], "ufo": ["spaceship"], "house": ["home"], "ship": ["boat"],
    "train": ["railway"], "gift": ["present"], "television": ["tv"], "phone": ["smartphone"], "coffee": ["tea"],
    "bee": ["honeybee"], "whale": [], "cherries": ["cherry"], "french fries": ["fries"], "donut": ["doughnut"],
    "ice cream cone": ["icecream"], "sneaker": ["shoe", "trainers"], "couch": ["sofa"], "fire": ["flame"],
    "lightning": ["thunderbolt"], "palm tree": ["palm"], "corn": ["maize"], "poo": ["poop"], "soccer ball": ["soccer"],
    "american football": ["football"], "tennis ball": ["tennis"], "light bulb": ["lightbulb", "lamp"],
    "magnifying glass": ["magnifier"], "sauropod": ["dinosaur"], "computer": ["desktop"], "open book": ["book"],
    "money bag": ["money"], "tropical fish": [], "motorcycle": ["motorbike"], "watermelon": [], "tree": ["oak"],
    "pine tree": ["pine"], "chili pepper": ["chili"], "teddy bear": ["teddy"], "smiling face": ["smiley"],
    "grinning face": ["smiley"], "suitcase": ["baggage"], "hippo": ["hippopotamus"], "lettuce": ["salad"],
    "lock": ["padlock"], "explosion": ["boom"], "planet": ["saturn"], "globe": ["earth"], "diamond": ["gem", "jewel"],
}
# Tags taken as other words for the object they belong to; most tags only describe or are slang.
GOOD_TAGS = set("""puppy puppies alpaca hippopotamus grizzly cygnet tortoise serpent brontosaurus brachiosaurus
tyrannosaurus conch shell slug honeybee bumblebee ladybird buttercup dandelion sapling sprout evergreen deciduous
toadstool grape citrus berry aubergine maize cabbage loaf toast hotcake pancake drumstick poultry pepperoni frankfurter
hotdog sausage noodle soup meatballs pasta cupcake mug ale pint soda juice boba cutlery barrel honeypot jar earth
eruption camping chapel locomotive taxi cab automobile motorbike skates wheels gasoline fuel stoplight yacht
jet skydive copter saucer luggage baggage timer saturn droplet whirlwind tada flame soccer football shuttlecock hole
bullseye dart billiard jigsaw die crochet eyeglasses tie tshirt denim trousers pants jacket stocking purse
rucksack satchel stiletto tophat gem jewel mic headphone earbud sax keyboard monitor calculator photo magnifier
padlock parcel keys hatchet archery spanner cog cogwheel chain horseshoe vaccination needle vitamin pills seat sofa
bath pail brush toiletry trolley headstone grave sob geek demon poop recycle tick checkmark smartphone
keyboard smiley bunny cherry sheep mollusk shellfish bug beetle stars plane gene chemistry wrapped champion""".split())


def strip_variation(code):
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def read_objects(path):
    """List of (label, name) from objects.txt."""
    result = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("#"):
                continue
            for entry in filter(None, (part.strip() for part in line.split(";"))):
                label, _, name = entry.partition("=")
                result.append((label, name or label.lower()))
    return result


def choose_aliases(objects, tags, all_tags):
    """Single words that point to one object only and are rare in the whole emoji set."""
    name_words = {word for name in objects for word in words_of(name)}
    owners, overall = {}, {}
    for entry in all_tags:
        for tag in entry:
            overall[tag] = overall.get(tag, 0) + 1
    for name in objects:
        for tag in tags[name]:
            owners.setdefault(tag, set()).add(name)
    result, taken = {}, set(objects)
    for name in objects:
        chosen = []
        for word in EXTRA_ALIASES.get(name, []):
            if word not in taken:
                chosen.append(word)
                taken.add(word)
        result[name] = chosen
    for name in objects:
        for tag in sorted(tags[name], key=lambda t: (overall.get(t, 0), t)):
            if len(result[name]) >= MAX_ALIASES:
                break
            simple = tag in GOOD_TAGS and tag not in name_words
            if simple and tag not in taken and len(owners[tag]) == 1 and overall.get(tag, 0) <= 3:
                result[name].append(tag)
                taken.add(tag)
    return {name: words for name, words in result.items() if words}


def encode_svg(data):
    """SVG bytes to WebP bytes of RENDER_SIZE with alpha."""
    size = str(RENDER_SIZE)
    png = subprocess.run(["rsvg-convert", "-w", size, "-h", size, "-a", "-f", "png"], input=data,
                         stdout=subprocess.PIPE, check=True).stdout
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    canvas = Image.new("RGBA", (RENDER_SIZE, RENDER_SIZE))
    canvas.paste(picture, ((RENDER_SIZE - picture.width) // 2, (RENDER_SIZE - picture.height) // 2))
    buffer = io.BytesIO()
    canvas.save(buffer, "WEBP", quality=88, method=4)
    return buffer.getvalue()


def read_archive(path, wanted):
    """Contents of the files of a tar archive for which wanted(name) gives a key."""
    result = {}
    with tarfile.open(path) as archive:
        for member in archive:
            key = wanted(member.name) if member.isfile() else None
            if key is not None:
                result[key] = archive.extractfile(member).read()
    return result


def fluent_key(name):
    match = re.fullmatch(r"(?:\./)?assets/([^/]+)/Default/3D_256\.webp", name)
    return match.group(1).lower() if match else None


def svg_key(name):
    match = re.fullmatch(r".*/(noto|twemoji|blob)/([0-9A-Fa-f-]+)\.svg", name)
    return (match.group(1), strip_variation(match.group(2))) if match else None


def main(source, out):
    os.makedirs(out, exist_ok=True)
    with gzip.open(os.path.join(source, "emojibase_en.json.gz"), "rt", encoding="utf-8") as file:
        base = {entry["label"]: entry for entry in json.load(file)}
    fluent = read_archive(os.path.join(source, "fluent_emoji_3d_256_webp.tar"), fluent_key)
    drawings = read_archive(os.path.join(source, "emoji_svg_noto_twemoji_blob.tar.xz"), svg_key)

    objects, tags, pictures, jobs = [], {}, {}, []
    for label, name in read_objects(os.path.join(HERE, "objects.txt")):
        entry = base.get(label)
        code = strip_variation(entry["hexcode"]) if entry else ""
        if not entry or label.lower() not in fluent or any((s, code) not in drawings for s in ("noto", "twemoji")):
            print("left out, not in every set:", label)
            continue
        if name in objects:
            raise SystemExit(f"the name {name} is used twice")
        index = len(objects)
        objects.append(name)
        tags[name] = {tag.lower() for tag in entry.get("tags", [])} | {w for w in words_of(label)}
        pictures["3d", index] = fluent[label.lower()]
        jobs += [(style, index, drawings[folder, code]) for style, folder in SVG_FOLDERS.items()
                 if (folder, code) in drawings]

    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for (style, index, _), data in zip(jobs, executor.map(lambda job: encode_svg(job[2]), jobs)):
            pictures[style, index] = data
    with tarfile.open(os.path.join(out, "sprites.tar"), "w") as archive:
        for (style, index), data in sorted(pictures.items()):
            info = tarfile.TarInfo(f"{style}/{index:03d}.webp")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    aliases = choose_aliases(objects, tags, [[t.lower() for t in e.get("tags", [])] for e in base.values()])
    concepts = {"objects": objects, "aliases": aliases, "styles": STYLES, "colors": COLORS,
                "backgrounds": BACKGROUNDS, "relations": RELATIONS,
                "in_style": {style: sorted(i for s, i in pictures if s == style) for style in STYLES}}
    with open(os.path.join(out, "concepts.json"), "w", encoding="utf-8") as file:
        json.dump(concepts, file, indent=1)
    words = {word for name in objects for word in words_of(name)} | template_words()
    words |= {word for group in aliases.values() for text in group for word in words_of(text)}
    with open(os.path.join(out, "vocabulary.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(["<pad>"] + sorted(words)) + "\n")
    write_evaluation_prompts(Captioner(out), out)
    size = os.path.getsize(os.path.join(out, "sprites.tar"))
    print(f"{len(objects)} objects, {len(pictures)} pictures, {len(words) + 1} words, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
