#include "backend/vk/stream.h"

#include <algorithm>
#include <deque>

#include "backend/vk/context.h"

namespace fovea::vk {
namespace {

constexpr uint32_t kSetsPerPool = 256;
constexpr uint32_t kQueries = 8192;  // two a dispatch

struct Range {
    const void* buffer;
    uint64_t begin, end;
    bool overlaps(const Range& other) const {
        return buffer == other.buffer && begin < other.end && other.begin < end;
    }
};

bool any_overlap(const std::vector<Range>& ranges, const Range& range) {
    return std::any_of(ranges.begin(), ranges.end(),
                       [&](const Range& r) { return r.overlaps(range); });
}

}  // namespace

struct Stream::Impl {
    struct Batch {
        VkCommandBuffer commands = VK_NULL_HANDLE;
        uint64_t number = 0;  ///< among all streams' of the device
        uint64_t value = 0;   ///< timeline value when done
        std::vector<VkDescriptorPool> pools;
        uint32_t sets_left = 0;
        std::vector<std::shared_ptr<Buffer>> staging;
        VkQueryPool queries = VK_NULL_HANDLE;
        std::vector<std::string> labels;
    };

    explicit Impl(Device& device) : owner(device), d(device.impl()) {
        const VkCommandPoolCreateInfo pool_info{
            .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
            .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
            .queueFamilyIndex = d.physical.queue_family};
        check(d.fn.vkCreateCommandPool(d.device, &pool_info, nullptr, &command_pool),
              "vkCreateCommandPool");
        const VkSemaphoreTypeCreateInfo type{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                             .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
        const VkSemaphoreCreateInfo semaphore_info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                                   .pNext = &type};
        check(d.fn.vkCreateSemaphore(d.device, &semaphore_info, nullptr, &timeline),
              "vkCreateSemaphore");
    }

    Batch& recording() {
        if (current) return *current;
        current = std::make_unique<Batch>();
        current->number = ++d.last_batch;
        d.recording[current->number] = [this] { submit(); };
        ++d.open_batches;
        const VkCommandBufferAllocateInfo allocate{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = command_pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1};
        check(d.fn.vkAllocateCommandBuffers(d.device, &allocate, &current->commands),
              "vkAllocateCommandBuffers");
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                             .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
        check(d.fn.vkBeginCommandBuffer(current->commands, &begin), "vkBeginCommandBuffer");
        if (profiling) {
            const VkQueryPoolCreateInfo query_info{
                .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                .queryType = VK_QUERY_TYPE_TIMESTAMP,
                .queryCount = kQueries};
            check(d.fn.vkCreateQueryPool(d.device, &query_info, nullptr, &current->queries),
                  "vkCreateQueryPool");
            d.fn.vkCmdResetQueryPool(current->commands, current->queries, 0, kQueries);
        }
        barrier();  // orders this batch after everything submitted before it
        return *current;
    }

    void barrier() {
        const VkMemoryBarrier2 memory{
            .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
            .srcStageMask =
                VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_2_TRANSFER_BIT,
            .srcAccessMask = VK_ACCESS_2_SHADER_WRITE_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT,
            .dstStageMask =
                VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_2_TRANSFER_BIT,
            .dstAccessMask = VK_ACCESS_2_SHADER_READ_BIT | VK_ACCESS_2_SHADER_WRITE_BIT |
                             VK_ACCESS_2_TRANSFER_READ_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT};
        const VkDependencyInfo dependency{.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                          .memoryBarrierCount = 1,
                                          .pMemoryBarriers = &memory};
        d.fn.vkCmdPipelineBarrier2(current->commands, &dependency);
        reads.clear();
        writes.clear();
    }

    // What another stream has recorded of these buffers comes first. A pooled buffer keeps the mark
    // of its last batch, which may not have been submitted when another stream gets it.
    void submit_others(std::span<const Access> accesses) {
        const uint64_t own = current->number;
        for (const Access& access : accesses) {
            if (!access.buffer) continue;
            uint64_t& last = access.buffer->handle().last_batch;
            const auto other = last == own ? d.recording.end() : d.recording.find(last);
            if (other != d.recording.end()) std::function(other->second)();  // which erases it
            last = own;
        }
    }

    // A barrier iff something since the last one conflicts: read after write, write after read or
    // write.
    void order(std::span<const Access> accesses) {
        submit_others(accesses);
        bool conflict = false;
        for (const Access& access : accesses) {
            if (!access.buffer) continue;
            const Range range = range_of(access);
            conflict = conflict || any_overlap(writes, range) ||
                       (access.mode != Access::Mode::read && any_overlap(reads, range));
        }
        if (conflict) barrier();
        for (const Access& access : accesses) {
            if (!access.buffer) continue;
            if (access.mode != Access::Mode::write) reads.push_back(range_of(access));
            if (access.mode != Access::Mode::read) writes.push_back(range_of(access));
        }
    }

    static Range range_of(const Access& access) {
        return {access.buffer->handle().buffer, access.offset, access.offset + access.bytes};
    }

    VkDescriptorSet descriptor_set(Batch& batch, const Program& program) {
        if (batch.sets_left == 0) {
            const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, kSetsPerPool * 16};
            const VkDescriptorPoolCreateInfo info{
                .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                .maxSets = kSetsPerPool,
                .poolSizeCount = 1,
                .pPoolSizes = &size};
            VkDescriptorPool pool = VK_NULL_HANDLE;
            check(d.fn.vkCreateDescriptorPool(d.device, &info, nullptr, &pool),
                  "vkCreateDescriptorPool");
            batch.pools.push_back(pool);
            batch.sets_left = kSetsPerPool;
        }
        const VkDescriptorSetAllocateInfo info{
            .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
            .descriptorPool = batch.pools.back(),
            .descriptorSetCount = 1,
            .pSetLayouts = &program.set_layout};
        VkDescriptorSet set = VK_NULL_HANDLE;
        check(d.fn.vkAllocateDescriptorSets(d.device, &info, &set), "vkAllocateDescriptorSets");
        --batch.sets_left;
        return set;
    }

    void begin_timing(Batch& batch, std::string_view label) {
        if (!batch.queries) return;
        const auto query = static_cast<uint32_t>(batch.labels.size() * 2);
        batch.labels.emplace_back(label);
        d.fn.vkCmdWriteTimestamp2(batch.commands, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                                  batch.queries, query);
    }

    // Serialises timed work: a stage mask of everything waits for the dispatch to end.
    void end_timing(Batch& batch) {
        if (!batch.queries) return;
        const auto query = static_cast<uint32_t>(batch.labels.size() * 2 - 1);
        d.fn.vkCmdWriteTimestamp2(batch.commands, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                                  batch.queries, query);
        if (query + 2 >= kQueries) submit();
    }

    void submit() {
        if (!current) return;
        d.recording.erase(current->number);
        const VkMemoryBarrier2 to_host{.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
                                       .srcStageMask = VK_PIPELINE_STAGE_2_TRANSFER_BIT,
                                       .srcAccessMask = VK_ACCESS_2_TRANSFER_WRITE_BIT,
                                       .dstStageMask = VK_PIPELINE_STAGE_2_HOST_BIT,
                                       .dstAccessMask = VK_ACCESS_2_HOST_READ_BIT};
        const VkDependencyInfo dependency{.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                          .memoryBarrierCount = 1,
                                          .pMemoryBarriers = &to_host};
        d.fn.vkCmdPipelineBarrier2(current->commands, &dependency);
        check(d.fn.vkEndCommandBuffer(current->commands), "vkEndCommandBuffer");
        current->value = ++last_value;
        const VkCommandBufferSubmitInfo commands{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
            .commandBuffer = current->commands};
        const VkSemaphoreSubmitInfo signal{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                           .semaphore = timeline,
                                           .value = current->value,
                                           .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
        const VkSubmitInfo2 submit_info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                        .commandBufferInfoCount = 1,
                                        .pCommandBufferInfos = &commands,
                                        .signalSemaphoreInfoCount = 1,
                                        .pSignalSemaphoreInfos = &signal};
        const VkResult result = d.fn.vkQueueSubmit2(d.queue, 1, &submit_info, VK_NULL_HANDLE);
        in_flight.push_back(std::move(current));
        check(result, "vkQueueSubmit2");
        uint64_t reached = 0;
        check(d.fn.vkGetSemaphoreCounterValue(d.device, timeline, &reached),
              "vkGetSemaphoreCounterValue");
        retire(reached);
    }

    void retire(uint64_t reached) {
        while (!in_flight.empty() && in_flight.front()->value <= reached) {
            Batch& batch = *in_flight.front();
            collect_times(batch);
            release(batch);
            in_flight.pop_front();
        }
    }

    void release(Batch& batch) {
        for (const auto pool : batch.pools) d.fn.vkDestroyDescriptorPool(d.device, pool, nullptr);
        if (batch.queries) d.fn.vkDestroyQueryPool(d.device, batch.queries, nullptr);
        d.fn.vkFreeCommandBuffers(d.device, command_pool, 1, &batch.commands);
        --d.open_batches;
    }

    void collect_times(Batch& batch) {
        if (!batch.queries || batch.labels.empty()) return;
        std::vector<uint64_t> ticks(batch.labels.size() * 2);
        check(d.fn.vkGetQueryPoolResults(
                  d.device, batch.queries, 0, static_cast<uint32_t>(ticks.size()), ticks.size() * 8,
                  ticks.data(), 8, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT),
              "vkGetQueryPoolResults");
        if (events.empty()) first_tick = ticks[0];
        const double us = d.physical.info.limits.timestamp_period * 1e-3;
        for (size_t i = 0; i < batch.labels.size(); ++i)
            events.push_back({batch.labels[i], static_cast<double>(ticks[2 * i] - first_tick) * us,
                              static_cast<double>(ticks[2 * i + 1] - ticks[2 * i]) * us});
    }

    void wait() {
        submit();
        const VkSemaphoreWaitInfo info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                       .semaphoreCount = 1,
                                       .pSemaphores = &timeline,
                                       .pValues = &last_value};
        check(d.fn.vkWaitSemaphores(d.device, &info, UINT64_MAX), "vkWaitSemaphores");
        retire(last_value);
    }

    Device& owner;
    Device::Impl& d;
    VkCommandPool command_pool = VK_NULL_HANDLE;
    VkSemaphore timeline = VK_NULL_HANDLE;
    uint64_t last_value = 0;
    std::unique_ptr<Batch> current;
    std::deque<std::unique_ptr<Batch>> in_flight;
    std::vector<Range> reads, writes;  ///< since the last barrier
    bool profiling = false;
    uint64_t first_tick = 0;
    std::vector<ProfileEvent> events;
};

Stream::Stream(Device& device) : impl_(std::make_unique<Impl>(device)) {}

Stream::~Stream() {
    auto& fn = impl_->d.fn;
    const auto device = impl_->d.device;
    fn.vkDeviceWaitIdle(device);
    if (impl_->current) {
        impl_->d.recording.erase(impl_->current->number);
        impl_->release(*impl_->current);
    }
    for (auto& batch : impl_->in_flight) impl_->release(*batch);
    fn.vkDestroySemaphore(device, impl_->timeline, nullptr);
    fn.vkDestroyCommandPool(device, impl_->command_pool, nullptr);
}

Device& Stream::device() const {
    return impl_->owner;
}

void Stream::dispatch(const Program& program, std::span<const Access> accesses,
                      std::span<const std::byte> params, Groups groups, std::string_view label) {
    Impl& s = *impl_;
    const Limits& limits = s.d.physical.info.limits;
    require(accesses.size() == program.bindings,
            "[{}] shader {} has {} bindings, found {} accesses", label, program.name,
            program.bindings, accesses.size());
    require(groups.x <= limits.workgroups[0] && groups.y <= limits.workgroups[1] &&
                groups.z <= limits.workgroups[2],
            "[{}] {}×{}×{} workgroups, the device allows {}×{}×{}", label, groups.x, groups.y,
            groups.z, limits.workgroups[0], limits.workgroups[1], limits.workgroups[2]);
    if (groups.x == 0 || groups.y == 0 || groups.z == 0) return;

    auto& batch = s.recording();
    s.order(accesses);
    const VkDescriptorSet set = s.descriptor_set(batch, program);
    std::vector<VkDescriptorBufferInfo> infos(accesses.size());
    std::vector<VkWriteDescriptorSet> writes(accesses.size());
    for (uint32_t i = 0; i < accesses.size(); ++i) {
        const Access& access = accesses[i];
        require(access.bytes <= limits.storage_buffer_range,
                "[{}] binding {} is {} bytes, the device's shaders see at most {}: use a smaller "
                "size or "
                "batch",
                label, i, access.bytes, limits.storage_buffer_range);
        require(access.offset % limits.storage_offset_alignment == 0,
                "[{}] binding {} starts at byte {}, the device needs multiples of {}", label, i,
                access.offset, limits.storage_offset_alignment);
        const auto& buffer = access.buffer ? *access.buffer : *s.d.dummy;
        infos[i] = {buffer.handle().buffer, access.offset,
                    access.buffer ? access.bytes : VK_WHOLE_SIZE};
        writes[i] = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                     .dstSet = set,
                     .dstBinding = i,
                     .descriptorCount = 1,
                     .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                     .pBufferInfo = &infos[i]};
    }
    s.d.fn.vkUpdateDescriptorSets(s.d.device, static_cast<uint32_t>(writes.size()), writes.data(),
                                  0, nullptr);
    s.d.fn.vkCmdBindPipeline(batch.commands, VK_PIPELINE_BIND_POINT_COMPUTE, program.pipeline);
    s.d.fn.vkCmdBindDescriptorSets(batch.commands, VK_PIPELINE_BIND_POINT_COMPUTE, program.layout,
                                   0, 1, &set, 0, nullptr);
    if (!params.empty())
        s.d.fn.vkCmdPushConstants(batch.commands, program.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                  static_cast<uint32_t>(params.size()), params.data());
    s.begin_timing(batch, label);
    s.d.fn.vkCmdDispatch(batch.commands, groups.x, groups.y, groups.z);
    s.end_timing(batch);
}

void Stream::copy(const Access& source, const Access& destination) {
    Impl& s = *impl_;
    require(source.bytes == destination.bytes, "[copy] {} bytes into {}", source.bytes,
            destination.bytes);
    if (source.bytes == 0) return;
    auto& batch = s.recording();
    Access from = source, to = destination;
    from.mode = Access::Mode::read;
    to.mode = Access::Mode::write;
    const Access both[] = {from, to};
    s.order(both);
    const VkBufferCopy region{source.offset, destination.offset, source.bytes};
    s.begin_timing(batch, "copy");
    s.d.fn.vkCmdCopyBuffer(batch.commands, source.buffer->handle().buffer,
                           destination.buffer->handle().buffer, 1, &region);
    s.end_timing(batch);
}

void Stream::fill(const Access& destination, uint32_t value) {
    Impl& s = *impl_;
    auto& batch = s.recording();
    Access to = destination;
    to.mode = Access::Mode::write;
    s.order({&to, 1});
    s.begin_timing(batch, "fill");
    s.d.fn.vkCmdFillBuffer(batch.commands, to.buffer->handle().buffer, to.offset, to.bytes, value);
    s.end_timing(batch);
}

void Stream::upload(const Access& destination, std::span<const std::byte> bytes) {
    require(bytes.size() <= destination.bytes, "[upload] {} bytes into {}", bytes.size(),
            destination.bytes);
    if (bytes.empty()) return;
    const auto staging = device().allocate(bytes.size(), Memory::upload, "upload staging");
    std::memcpy(staging->mapped(), bytes.data(), bytes.size());
    vmaFlushAllocation(impl_->d.allocator, staging->handle().allocation, 0, VK_WHOLE_SIZE);
    Access to = destination;
    to.bytes = bytes.size();
    // Kept before the copy is recorded: its timing may submit the batch that reads it.
    impl_->recording().staging.push_back(staging);
    copy({staging, 0, bytes.size(), Access::Mode::read}, to);
}

void Stream::download(const Access& source, std::span<std::byte> bytes) {
    require(bytes.size() <= source.bytes, "[download] {} bytes of {}", bytes.size(), source.bytes);
    if (bytes.empty()) return;
    const auto staging = device().allocate(bytes.size(), Memory::readback, "download staging");
    Access from = source;
    from.bytes = bytes.size();
    copy(from, {staging, 0, bytes.size(), Access::Mode::write});
    wait();
    vmaInvalidateAllocation(impl_->d.allocator, staging->handle().allocation, 0, VK_WHOLE_SIZE);
    std::memcpy(bytes.data(), staging->mapped(), bytes.size());
}

void Stream::submit() {
    impl_->submit();
}

void Stream::wait() {
    const uint64_t before = validation_messages();
    impl_->wait();
    require(validation_messages() == before, "[vulkan] validation messages, see above");
}

void Stream::profile(bool on) {
    require(!on || impl_->d.physical.info.limits.timestamp_period > 0,
            "[profile] {} has no timestamps on its compute queue", impl_->d.physical.info.name);
    impl_->submit();  // a batch has queries from its start or not at all
    impl_->profiling = on;
}

const std::vector<ProfileEvent>& Stream::profile_events() const {
    return impl_->events;
}

}  // namespace fovea::vk
