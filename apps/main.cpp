#include <fcntl.h>

#include <cstdlib>
#include <exception>

#include "apps/app.h"
#include "backend/error.h"
#include "backend/log.h"
#include "pipelines/denoise.h"

int main(int argc, char** argv) {
    using namespace fovea;
    // Else a file of ours would stand where messages go.
    for (int standard = 0; standard < 3; ++standard)
        if (::fcntl(standard, F_GETFD) < 0) ::open("/dev/null", O_RDWR);
    CLI::App app(
        "fovea: pictures and clips from text with sparse attention, on any Vulkan 1.3 device or on "
        "the CPU.\n"
        "Start with:  fovea generate \"a red apple on a blue background\"");
    app.set_version_flag("--version", std::string("fovea ") + apps::kVersion);
    app.require_subcommand(1);
    app.fallthrough();  // options of all commands may stand behind the command's name
    app.add_flag_callback(
        "--no-tune", [] { setenv("FOVEA_TUNE", "off", 1); },
        "Take tiles by rule alone, not those of fovea tune: the same bits whatever was tuned");
    apps::add_generate(app);
    apps::add_video(app);
    apps::add_batch(app);
    apps::add_calibrate(app);
    apps::add_lens(app);
    apps::add_edit(app);
    apps::add_inpaint(app);
    apps::add_segment(app);
    apps::add_features(app);
    apps::add_headhunt(app);
    apps::add_score(app);
    apps::add_attention(app);
    apps::add_plan(app);
    apps::add_bench(app);
    apps::add_tune(app);
    apps::add_info(app);
    apps::require_finite(app);
    apps::watch_signals();
    try {
        app.parse(argc, argv);
        return 0;
    } catch (const CLI::RuntimeError& error) {  // of a command that has said why
        return error.get_exit_code();
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    } catch (const Cancelled&) {
        log::say("fovea: interrupted, nothing written\n");
        return apps::kInterrupted;
    } catch (const std::exception& error) {
        log::say("fovea: error: {}\n", error.what());
        return 1;
    }
}
