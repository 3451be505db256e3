#include "backend/vk/stream.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>

#include "backend/log.h"
#include "backend/vk/commands.h"
#include "backend/vk/context.h"

namespace fovea::vk {
namespace {

constexpr uint32_t kSetsPerPool = 256;
constexpr uint32_t kMostBindings = 16;
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
        Commands commands;
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
        d.recorded[current->number] = {this, [this] { submit_all(); }};
        ++d.open_batches;
        const VkCommandBufferAllocateInfo allocate{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = command_pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1};
        check(d.fn.vkAllocateCommandBuffers(d.device, &allocate, &current->commands.buffer),
              "vkAllocateCommandBuffers");
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                             .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
        check(d.fn.vkBeginCommandBuffer(current->commands.buffer, &begin), "vkBeginCommandBuffer");
        if (profiling) {
            const VkQueryPoolCreateInfo query_info{
                .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                .queryType = VK_QUERY_TYPE_TIMESTAMP,
                .queryCount = kQueries};
            check(d.fn.vkCreateQueryPool(d.device, &query_info, nullptr, &current->queries),
                  "vkCreateQueryPool");
            d.fn.vkCmdResetQueryPool(current->commands.buffer, current->queries, 0, kQueries);
        }
        barrier();  // orders this batch after everything submitted before it
        return *current;
    }

    void barrier() {
        put_barrier({
            .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
            .srcStageMask =
                VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_2_TRANSFER_BIT,
            .srcAccessMask = VK_ACCESS_2_SHADER_WRITE_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT,
            .dstStageMask =
                VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_2_TRANSFER_BIT,
            .dstAccessMask = VK_ACCESS_2_SHADER_READ_BIT | VK_ACCESS_2_SHADER_WRITE_BIT |
                             VK_ACCESS_2_TRANSFER_READ_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT,
        });
        reads.clear();
        writes.clear();
    }

    void put_barrier(const VkMemoryBarrier2& memory) {
        put(nullptr, {}, [&d = d, memory](VkCommandBuffer commands) {
            const VkDependencyInfo dependency{.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                              .memoryBarrierCount = 1,
                                              .pMemoryBarriers = &memory};
            d.fn.vkCmdPipelineBarrier2(commands, &dependency);
        });
    }

    // Behind a batch that waits for its pipelines nothing is written before they are there: they
    // may fail.
    template <typename Write>
    void put(const Program* program, std::string_view label, const Write& write) {
        current->commands.put(program, label, write, !sealed.empty());
    }

    // As put(), between two timestamps where there is a profile. A stage mask of everything waits
    // for the command to end: timed work is serialised.
    template <typename Write>
    void put_timed(const Program* program, std::string_view label, const Write& write) {
        if (!current->queries) return put(program, label, write);
        const auto query = static_cast<uint32_t>(current->labels.size() * 2);
        current->labels.emplace_back(label);
        put(program, label,
            [&d = d, queries = current->queries, query, write](VkCommandBuffer commands) {
                const auto stage = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT;
                d.fn.vkCmdWriteTimestamp2(commands, stage, queries, query);
                write(commands);
                d.fn.vkCmdWriteTimestamp2(commands, stage, queries, query + 1);
            });
        if (query + 4 > kQueries) submit();
    }

    // What another stream has recorded of these buffers comes first. A pooled buffer keeps the mark
    // of its last batch, which may not have been submitted when another stream gets it.
    void submit_others(std::span<const Access> accesses) {
        const uint64_t own = current->number;
        for (const Access& access : accesses) {
            if (!access.buffer) continue;
            uint64_t& last = access.buffer->handle().last_batch;
            const auto other = last == own ? d.recorded.end() : d.recorded.find(last);
            if (other != d.recorded.end() && other->second.stream != this)
                std::function(other->second.submit)();  // which erases it
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
            const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                            kSetsPerPool * kMostBindings};
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

    // Ends the batch; it goes to the queue when its pipelines are there.
    void seal() {
        if (!current) return;
        put_barrier({.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
                     .srcStageMask = VK_PIPELINE_STAGE_2_TRANSFER_BIT,
                     .srcAccessMask = VK_ACCESS_2_TRANSFER_WRITE_BIT,
                     .dstStageMask = VK_PIPELINE_STAGE_2_HOST_BIT,
                     .dstAccessMask = VK_ACCESS_2_HOST_READ_BIT});
        sealed.push_back(std::move(current));
    }

    void enqueue(std::unique_ptr<Batch> ended) {
        Batch& batch = *in_flight.emplace_back(std::move(ended));
        d.recorded.erase(batch.number);
        check(d.fn.vkEndCommandBuffer(batch.commands.buffer), "vkEndCommandBuffer");
        batch.value = ++last_value;
        const VkCommandBufferSubmitInfo commands{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
            .commandBuffer = batch.commands.buffer};
        const VkSemaphoreSubmitInfo signal{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                           .semaphore = timeline,
                                           .value = batch.value,
                                           .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
        const VkSubmitInfo2 submit_info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                        .commandBufferInfoCount = 1,
                                        .pCommandBufferInfos = &commands,
                                        .signalSemaphoreInfoCount = 1,
                                        .pSignalSemaphoreInfos = &signal};
        check(d.fn.vkQueueSubmit2(d.queue, 1, &submit_info, VK_NULL_HANDLE), "vkQueueSubmit2");
    }

    // In order: those whose pipelines are there, or all. Says what failed, if something did.
    std::string submit_sealed(bool all) {
        using Clock = std::chrono::steady_clock;
        std::string failure;
        const auto begin = Clock::now();
        bool waited = false;
        while (!sealed.empty()) {
            const bool waits = sealed.front()->commands.waits();
            if (waits && !all && failure.empty()) break;
            waited = waited || waits;
            auto batch = std::move(sealed.front());
            sealed.pop_front();
            batch->commands.write_kept(failure);
            if (!failure.empty()) batch->labels.clear();  // not all timestamps are written
            enqueue(std::move(batch));
        }
        if (waited)
            log::info("{:.2f} s of waiting for pipelines",
                      std::chrono::duration<double>(Clock::now() - begin).count());
        uint64_t reached = 0;
        check(d.fn.vkGetSemaphoreCounterValue(d.device, timeline, &reached),
              "vkGetSemaphoreCounterValue");
        retire(reached);
        return failure;
    }

    void submit() {
        if (!current && sealed.empty()) return;
        seal();
        const std::string failure = submit_sealed(false);
        require(failure.empty(), "{}", failure);
    }

    void submit_all() {
        seal();
        const std::string failure = submit_sealed(true);
        require(failure.empty(), "{}", failure);
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
        d.fn.vkFreeCommandBuffers(d.device, command_pool, 1, &batch.commands.buffer);
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

    // For all but `ahead` of the newest batches.
    void wait(uint64_t ahead) {
        const uint64_t before = validation_messages();
        seal();
        const std::string failure = submit_sealed(true);
        const uint64_t value = last_value - std::min(last_value, ahead);
        const VkSemaphoreWaitInfo info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                       .semaphoreCount = 1,
                                       .pSemaphores = &timeline,
                                       .pValues = &value};
        check(d.fn.vkWaitSemaphores(d.device, &info, UINT64_MAX), "vkWaitSemaphores");
        retire(value);
        require(failure.empty(), "{}", failure);
        require(validation_messages() == before, "[vulkan] validation messages, see above");
    }

    Device& owner;
    Device::Impl& d;
    VkCommandPool command_pool = VK_NULL_HANDLE;
    VkSemaphore timeline = VK_NULL_HANDLE;
    uint64_t last_value = 0;
    std::unique_ptr<Batch> current;
    std::deque<std::unique_ptr<Batch>> sealed, in_flight;  ///< submitted; in the queue
    std::vector<Range> reads, writes;                      ///< since the last barrier
    bool profiling = false;
    uint64_t first_tick = 0;
    std::vector<ProfileEvent> events;
};

Stream::Stream(Device& device) : impl_(std::make_unique<Impl>(device)) {}

Stream::~Stream() {
    Impl& s = *impl_;
    try {
        const std::string failure = s.submit_sealed(true);
        if (!failure.empty()) log::error("{}", failure);
    } catch (const Error& error) {
        log::error("{}", error.what());
    }
    s.d.fn.vkDeviceWaitIdle(s.d.device);
    if (s.current) s.sealed.push_back(std::move(s.current));
    for (auto& batch : s.sealed) {
        s.d.recorded.erase(batch->number);
        s.release(*batch);
    }
    for (auto& batch : s.in_flight) s.release(*batch);
    s.d.fn.vkDestroySemaphore(s.d.device, s.timeline, nullptr);
    s.d.fn.vkDestroyCommandPool(s.d.device, s.command_pool, nullptr);
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
    require(program.bindings <= kMostBindings && params.size() <= 128,
            "[{}] shader {}: {} bindings and {} bytes of parameters, at most {} and 128 expected",
            label, program.name, program.bindings, params.size(), kMostBindings);
    require(groups.x <= limits.workgroups[0] && groups.y <= limits.workgroups[1] &&
                groups.z <= limits.workgroups[2],
            "[{}] {}×{}×{} workgroups, the device allows {}×{}×{}", label, groups.x, groups.y,
            groups.z, limits.workgroups[0], limits.workgroups[1], limits.workgroups[2]);
    if (groups.x == 0 || groups.y == 0 || groups.z == 0) return;
    if (program.state() == Program::State::failed) fail("{}", no_pipeline(program, label));

    auto& batch = s.recording();
    s.order(accesses);
    const VkDescriptorSet set = s.descriptor_set(batch, program);
    std::array<VkDescriptorBufferInfo, kMostBindings> infos;
    std::array<VkWriteDescriptorSet, kMostBindings> writes;
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
    s.d.fn.vkUpdateDescriptorSets(s.d.device, program.bindings, writes.data(), 0, nullptr);
    std::array<std::byte, 128> constants;
    std::copy(params.begin(), params.end(), constants.begin());
    s.put_timed(
        &program, label,
        [&d = s.d, &program, set, constants, bytes = static_cast<uint32_t>(params.size()),
         groups](VkCommandBuffer commands) {
            d.fn.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, program.pipeline);
            d.fn.vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, program.layout,
                                         0, 1, &set, 0, nullptr);
            if (bytes > 0)
                d.fn.vkCmdPushConstants(commands, program.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                        bytes, constants.data());
            d.fn.vkCmdDispatch(commands, groups.x, groups.y, groups.z);
        });
}

void Stream::copy(const Access& source, const Access& destination) {
    Impl& s = *impl_;
    require(source.bytes == destination.bytes, "[copy] {} bytes into {}", source.bytes,
            destination.bytes);
    if (source.bytes == 0) return;
    s.recording();
    Access from = source, to = destination;
    from.mode = Access::Mode::read;
    to.mode = Access::Mode::write;
    const Access both[] = {from, to};
    s.order(both);
    const VkBufferCopy region{source.offset, destination.offset, source.bytes};
    s.put_timed(nullptr, "copy",
                [&d = s.d, source = source.buffer->handle().buffer,
                 target = to.buffer->handle().buffer, region](VkCommandBuffer commands) {
                    d.fn.vkCmdCopyBuffer(commands, source, target, 1, &region);
                });
}

void Stream::fill(const Access& destination, uint32_t value) {
    Impl& s = *impl_;
    s.recording();
    Access to = destination;
    to.mode = Access::Mode::write;
    s.order({&to, 1});
    s.put_timed(nullptr, "fill",
                [&d = s.d, buffer = to.buffer->handle().buffer, offset = to.offset,
                 bytes = to.bytes, value](VkCommandBuffer commands) {
                    d.fn.vkCmdFillBuffer(commands, buffer, offset, bytes, value);
                });
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
    Access from = source;
    from.bytes = bytes.size();
    download(from, [&](std::span<const std::byte> device) {
        std::copy(device.begin(), device.end(), bytes.begin());
    });
}

void Stream::download(const Access& source,
                      const std::function<void(std::span<const std::byte>)>& use) {
    const auto staging = device().allocate(source.bytes, Memory::readback, "download staging");
    copy(source, {staging, 0, source.bytes, Access::Mode::write});
    wait();
    vmaInvalidateAllocation(impl_->d.allocator, staging->handle().allocation, 0, VK_WHOLE_SIZE);
    use({staging->mapped(), source.bytes});
}

void Stream::submit() {
    impl_->submit();
}
void Stream::wait() {
    impl_->wait(0);
}
void Stream::wait_for_earlier() {
    impl_->wait(impl_->current ? 1 : 0);
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
