#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "pipelines/segment.h"
#include "pipelines/text_to_image.h"

/// What a command works on, and for whom: alone, or as a job of `fovea batch`.
namespace fovea::apps {

/// A device and the models on it. One thread.
class Session {
  public:
    /// As vk::Device.
    explicit Session(const std::string& device);

    vk::Device& device() { return device_; }
    vk::Stream& stream() { return stream_; }
    /// As find_model() and choose_precision(); loaded once.
    const Model& model(const std::string& folder, const std::string& precision);
    const SegmentModel& segment_model(const std::string& folder, const std::string& precision);

  private:
    vk::Device device_;
    vk::Stream stream_;
    std::map<std::pair<std::string, DType>, std::unique_ptr<Model>> models_;
    std::map<std::pair<std::string, DType>, std::unique_ptr<SegmentModel>> segment_models_;
};

/// A picture that fovea generate would draw; others that differ in prompt and seed alone can be
/// drawn with it.
struct Drawing {
    TextToImage::Request request;  ///< of one seed
    std::string model, precision;
    std::function<nlohmann::json(Session& session)> settings;  ///< that travel in the picture
};

class Host {
  public:
    virtual ~Host() = default;

    /// Commands call it once, when everything that needs no device has been checked.
    virtual Session& open(const std::string& device) = 0;
    /// Whether somebody else draws it; then the command is done.
    virtual bool take(Drawing&&) { return false; }
    /// Neither progress nor results on the terminal.
    virtual bool quiet() const { return false; }
    /// Ends the work under way with Cancelled.
    virtual const std::atomic<bool>* cancel() const;
};

/// The commands as a user types them.
std::shared_ptr<Host> alone();

}  // namespace fovea::apps
