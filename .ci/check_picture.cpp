// usage: check_picture FILE.png: fails unless the file is a PNG that shows something.

#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

int main(int, char** arguments) {
    unsigned char signature[8] = {};
    FILE* file = std::fopen(arguments[1], "rb");
    if (!file || std::fread(signature, 1, 8, file) != 8 || std::memcmp(signature, "\x89PNG\r\n\x1a\n", 8))
        return std::printf("%s: not a PNG file\n", arguments[1]), 1;
    std::fclose(file);

    int width, height, channels;
    const unsigned char* pixels = stbi_load(arguments[1], &width, &height, &channels, 3);
    if (!pixels) return std::printf("%s: %s\n", arguments[1], stbi_failure_reason()), 1;
    const auto [darkest, brightest] = std::minmax_element(pixels, pixels + width * height * 3);
    std::printf("%s: %d x %d, values %d to %d\n", arguments[1], width, height, *darkest, *brightest);
    return *brightest - *darkest < 32;
}
