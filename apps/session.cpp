#include "apps/session.h"

#include <optional>

#include "apps/app.h"

namespace fovea::apps {
namespace {

class Alone : public Host {
  public:
    Session& open(const std::string& device) override { return session_.emplace(device); }

  private:
    std::optional<Session> session_;
};

template <typename M>
const M& loaded(std::map<std::pair<std::string, DType>, std::unique_ptr<M>>& models,
                vk::Stream& stream, const std::string& folder, const std::string& precision) {
    const DType dtype = choose_precision(stream.device().info(), precision);
    auto& slot = models[{folder, dtype}];
    if (!slot) slot = std::make_unique<M>(M::load(stream, find_model(folder), dtype));
    return *slot;
}

}  // namespace

Session::Session(const std::string& device) : device_(device), stream_(device_) {}

const Model& Session::model(const std::string& folder, const std::string& precision) {
    return loaded(models_, stream_, folder, precision);
}

const SegmentModel& Session::segment_model(const std::string& folder,
                                           const std::string& precision) {
    return loaded(segment_models_, stream_, folder, precision);
}

const std::atomic<bool>* Host::cancel() const {
    return &interrupted();
}

std::shared_ptr<Host> alone() {
    return std::make_shared<Alone>();
}

}  // namespace fovea::apps
