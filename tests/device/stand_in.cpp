// A device of its own kind whose memory is the CPU's: mistakes that would stop or mislead a program
// on a GPU (tensors of two devices in one operation, generators of another device) are errors here.

#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/Generator.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <cstdlib>
#include <torch/library.h>

namespace {

using c10::DispatchKey;
using c10::IValue;
constexpr auto kKind = c10::DeviceType::PrivateUse1;
const c10::Device kDevice(kKind, 0);

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = bytes ? std::malloc(bytes) : nullptr;
    return {memory, memory, &std::free, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};
Allocator allocator;
REGISTER_ALLOCATOR(kKind, &allocator)

// One device with one stream, on which everything is done at once.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = kKind;
  Guard() = default;
  explicit Guard(c10::DeviceType) {}
  c10::DeviceType type() const override { return kKind; }
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override {
    return c10::Stream(c10::Stream::DEFAULT, kDevice);
  }
  c10::Stream exchangeStream(c10::Stream) const override { return getStream(kDevice); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::Device getDeviceFromPtr(void*) const override { return kDevice; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto memory = allocator.allocate(bytes);
    auto kept = std::min(bytes, storage.nbytes());
    if (kept) std::memcpy(memory.get(), storage.data(), kept);
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(memory));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

bool is_here(const at::Tensor& tensor) { return tensor.defined() && tensor.device().type() == kKind; }

// A tensor over a storage, with the sizes and strides of another.
at::Tensor over(c10::Storage storage, const at::Tensor& like, DispatchKey key) {
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(key), like.dtype());
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(like.sizes(), like.strides());
  impl->set_storage_offset(like.storage_offset());
  if (like.is_conj()) tensor._set_conj(true);
  if (like.is_neg()) tensor._set_neg(true);
  return tensor;
}

// The storages of one call, on this device and as the CPU sees them.
struct Pairs {
  std::vector<std::pair<c10::Storage, c10::Storage>> known;

  at::Tensor to_cpu(const at::Tensor& tensor) {
    if (!is_here(tensor)) return tensor;
    const auto& own = tensor.storage();
    for (auto& [here, there] : known)
      if (here.unsafeGetStorageImpl() == own.unsafeGetStorageImpl())
        return over(there, tensor, DispatchKey::CPU);
    auto* memory = own.mutable_data();
    c10::Storage there(c10::Storage::use_byte_size_t(), own.nbytes(),
                       c10::DataPtr(memory, c10::Device(c10::DeviceType::CPU)),
                       c10::GetAllocator(c10::DeviceType::CPU), true);
    known.emplace_back(own, there);
    return over(there, tensor, DispatchKey::CPU);
  }

  at::Tensor from_cpu(const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.device().type() != c10::DeviceType::CPU) return tensor;
    for (auto& [here, there] : known)
      if (there.unsafeGetStorageImpl() == tensor.storage().unsafeGetStorageImpl())
        if (here.data() == there.data()) return over(here, tensor, DispatchKey::PrivateUse1);
    auto* owner = new c10::Storage(tensor.storage());
    c10::Storage here(c10::Storage::use_byte_size_t(), tensor.storage().nbytes(),
                      c10::DataPtr(tensor.storage().mutable_data(), owner,
                                   [](void* kept) { delete static_cast<c10::Storage*>(kept); },
                                   kDevice),
                      &allocator, true);
    known.emplace_back(here, tensor.storage());
    return over(here, tensor, DispatchKey::PrivateUse1);
  }
};

bool takes_cpu_numbers(const c10::OperatorHandle& op) {
  static const std::set<std::string> more = {"aten::fill_", "aten::masked_fill", "aten::masked_fill_",
                                             "aten::index_put_", "aten::_index_put_impl_",
                                             "aten::index_fill_", "aten::index_fill"};
  return op.hasTag(at::Tag::pointwise) || more.count(op.operator_name().name) != 0;
}

bool takes_cpu_indices(const std::string& name) {
  return name == "aten::index" || name == "aten::index_put_" || name == "aten::_index_put_impl_" ||
         name == "aten::_unsafe_index" || name == "aten::index_put" || name == "aten::_unsafe_index_put";
}

void run(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto count = schema.arguments().size();
  const auto begin = stack->size() - count;
  const std::string name = schema.name();
  std::vector<IValue> given(stack->begin() + begin, stack->end());
  Pairs pairs;
  auto checked = [&](const at::Tensor& tensor, bool is_index) {
    if (tensor.defined() && !is_here(tensor)) {
      const bool is_number = tensor.dim() == 0 && takes_cpu_numbers(op);
      TORCH_CHECK(is_number || (is_index && takes_cpu_indices(name)),
                  "Expected all tensors to be on the same device, but found at least two devices, ",
                  kDevice, " and ", tensor.device(), " in ", name);
    }
    return pairs.to_cpu(tensor);
  };
  for (size_t place = 0; place < count; ++place) {
    auto& value = (*stack)[begin + place];
    if (value.isTensor()) {
      value = checked(value.toTensor(), false);
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(checked(tensor, false));
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const auto& entry : value.toOptionalTensorVector())
        list.push_back(entry ? std::optional<at::Tensor>(checked(*entry, true)) : std::nullopt);
      value = list;
    } else if (value.isDevice()) {
      value = c10::Device(c10::DeviceType::CPU);
    } else if (value.isGenerator()) {
      TORCH_CHECK(value.toGenerator().device().type() == kKind, "Expected a '", kDevice.type(),
                  "' device type for generator but found '", value.toGenerator().device(), "' in ",
                  name);
    }
  }
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    op.callBoxed(stack);
  }
  const auto returned = schema.returns().size();
  const auto first = stack->size() - returned;
  for (size_t place = 0; place < returned; ++place) {
    auto& value = (*stack)[first + place];
    const auto* alias = schema.returns()[place].alias_info();
    if (value.isTensor() && alias != nullptr && alias->isWrite()) {
      for (size_t argument = 0; argument < count; ++argument) {
        const auto* other = schema.arguments()[argument].alias_info();
        if (other != nullptr && other->isWrite() && *other == *alias && given[argument].isTensor()) {
          const auto result = value.toTensor();
          const auto& original = given[argument].toTensor();
          if (result.defined() && original.sizes() != result.sizes()) {
            const auto moved = pairs.from_cpu(result);
            original.unsafeGetTensorImpl()->set_storage_keep_dtype(moved.storage());
            original.unsafeGetTensorImpl()->set_sizes_and_strides(moved.sizes(), moved.strides());
            original.unsafeGetTensorImpl()->set_storage_offset(moved.storage_offset());
          }
          value = original;
          break;
        }
      }
    } else if (value.isTensor()) {
      value = pairs.from_cpu(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(pairs.from_cpu(tensor));
      value = list;
    }
  }
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool> is_pinned,
                 std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!is_pinned.value_or(false), "Only dense CPU tensors can be pinned");
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &allocator,
                                           c10::DispatchKeySet(DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& target, bool non_blocking) {
  Pairs pairs;
  at::AutoDispatchBelowADInplaceOrView guard;
  pairs.to_cpu(target).copy_(pairs.to_cpu(self), non_blocking);
  return target;
}

const at::Tensor& resize(const at::Tensor& self, at::IntArrayRef size,
                         std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  const auto needed = (impl->numel() + impl->storage_offset()) * self.element_size();
  if (needed > self.storage().nbytes())
    at::detail::getPrivateUse1Hooks().resizePrivateUse1Bytes(self.storage(), needed);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage storage, int64_t offset, at::IntArrayRef size,
                        at::IntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_storage_offset(offset);
  impl->set_sizes_and_strides(size, stride);
  return self;
}

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                       at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, int64_t groups) {
  for (const auto& tensor : {input, weight, bias.value_or(at::Tensor())})
    TORCH_CHECK(!tensor.defined() || is_here(tensor), "Expected all tensors to be on the same device");
  Pairs pairs;
  at::AutoDispatchBelowADInplaceOrView guard;
  const auto shift = bias ? std::optional<at::Tensor>(pairs.to_cpu(*bias)) : std::nullopt;
  return pairs.from_cpu(at::convolution(pairs.to_cpu(input), pairs.to_cpu(weight), shift, stride,
                                        padding, dilation, transposed, output_padding, groups));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& gradient, const at::Tensor& input, const at::Tensor& weight,
    at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
    at::IntArrayRef output_padding, int64_t groups, std::array<bool, 3> mask) {
  for (const auto& tensor : {gradient, input, weight})
    TORCH_CHECK(is_here(tensor), "Expected all tensors to be on the same device");
  Pairs pairs;
  at::AutoDispatchBelowADInplaceOrView guard;
  const std::vector<int64_t> bias_sizes = {transposed ? weight.size(1) * groups : weight.size(0)};
  auto [one, two, three] = at::convolution_backward(
      pairs.to_cpu(gradient), pairs.to_cpu(input), pairs.to_cpu(weight),
      at::OptionalIntArrayRef(bias_sizes), stride, padding, dilation, transposed, output_padding,
      groups, mask);
  return {pairs.from_cpu(one), pairs.from_cpu(two), pairs.from_cpu(three)};
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("resize_", resize);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
}

extern "C" void register_hooks() {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
}
