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

}  // namespace

Session::Session(const std::string& device) : device_(device), stream_(device_) {}

const Model& Session::model(const std::string& folder, const std::string& precision) {
    const DType dtype = choose_precision(device_.info(), precision);
    auto& slot = models_[{folder, dtype}];
    if (!slot) slot = std::make_unique<Model>(Model::load(stream_, find_model(folder), dtype));
    return *slot;
}

const std::atomic<bool>* Host::cancel() const {
    return &interrupted();
}

std::shared_ptr<Host> alone() {
    return std::make_shared<Alone>();
}

}  // namespace fovea::apps
