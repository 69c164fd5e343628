"""The errors that people paste: what each means, a program that raises it here, and the same program, right.

One entry is one error. Its two programs stand above it; :func:`twograd.lore.programs.text_of` shows them as text. The
texts are those of the systems named, and most are raised here word for word.
"""

# Tensor gets its operators and methods when the package is imported: a type checker does not see them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false

import copy

import jax
import jax.numpy as jnp
import numpy as np

import twograd.numpy as tnp
import twograd.tape as torch
from twograd import graph
from twograd.errors import FREED, DisconnectedInput
from twograd.fronts import caffe, torch7
from twograd.graph import symbolic
from twograd.lore.dictionary import Entry

ENTRIES: list[Entry] = []
INPLACE = "https://discuss.pytorch.org/t/when-inplace-operation-are-allowed-and-when-not/169583/3".partition("//")[2]


def enter(*args, **kwargs) -> None:
    ENTRIES.append(Entry(*args, **kwargs))


# --- PyTorch: the graph and its saved values --------------------------------------------------------------------------


def backward_twice():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp().sum()
    y.backward()
    y.backward()


def backward_twice_retained():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp().sum()
    y.backward(retain_graph=True)
    y.backward()
    return x.grad


enter(
    "backward-twice",
    "PyTorch",
    (
        FREED,
        "Trying to backward through the graph a second time, but the <saved intermediate results> have already been "
        "freed. Specify retain_graph=True",
    ),
    "The walk back frees what each op saved as it passes, so a part of the graph can be walked once. Either backward "
    "was really called twice on one result, or, more often, something computed before the loop (or a hidden state "
    "carried from one step to the next) is part of every step's graph. Ops that save nothing, like 2 * x, can be "
    "walked any number of times, which is why some programs do not fail.",
    backward_twice,
    RuntimeError,
    backward_twice_retained,
    "Compute inside the loop what each step needs anew; detach() the state that is carried over. Where two backward "
    "passes over one graph are meant, retain_graph=True in all but the last. Setting it everywhere only hides the "
    "cause.",
    (
        "pytorch/pytorch#11192",
        "karpathy/nn-zero-to-hero#31",
        "TingsongYu/PyTorch-Tutorial-2nd#33",
        "davda54/sam#45",
        "SimplexLab/TorchJD#398",
        "Eurus-Holmes/MNMT#7",
        "discuss.pytorch.org/t/which-is-freed-which-is-not/8636",
    ),
)


def modified_in_place():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    y.mul_(2)
    y.sum().backward()


def modified_out_of_place():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    y = y * 2
    y.sum().backward()
    return x.grad


enter(
    "modified-in-place",
    "PyTorch",
    (
        "one of the variables needed for gradient computation has been modified by an inplace operation: [<type> "
        "<sizes>], which is output <n> of <node>, is at version <v>; expected version <w> instead.",
        "one of the variables needed for gradient computation has been modified by an inplace operation",
    ),
    "An op saved a value for its derivative, and that value was changed in place before the derivative was computed. "
    "exp saves its result, pow its operand, 10 * x neither: that decides which changes are legal "
    "(tape.save_map() prints it). The version count in the text says how many changes too many there were. An "
    "optimizer's step between two backward passes changes weights in place too.",
    modified_in_place,
    RuntimeError,
    modified_out_of_place,
    "Write the change out of place, do it after backward, or let the op save a clone(). Here the error's notes name "
    "the lines that changed the value, and under torch.autograd.detect_anomaly() each of the three is tried before "
    "it is offered.",
    (
        "pytorch/pytorch#96265",
        INPLACE,
        "quark0/darts#109",
        "NVlabs/FUNIT#23",
        "WOW5678/CompNet#2",
        "Jee-King/TSAN#3",
        "anse3832/USR_DA#4",
    ),
)


def leaf_in_place():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    w -= 0.1


def leaf_in_place_untracked():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    with torch.no_grad():
        w -= 0.1
    return w


enter(
    "leaf-in-place",
    "PyTorch",
    ("a leaf Variable that requires grad is being used in an in-place operation.",),
    "A leaf is where gradients are collected. After a tracked change in place it would be a result, and its .grad "
    "would belong to a value that is gone.",
    leaf_in_place,
    RuntimeError,
    leaf_in_place_untracked,
    "Update a weight inside of torch.no_grad(); to compute with a changed weight, change a clone() or write it out of "
    "place.",
    (
        "pytorch/pytorch#391",
        "pytorch/examples#779",
        "BaiTheBest/SparseLLM#13",
        "NVlabs/VILA#199",
        "Atcold/NYU-DLSP20#765",
    ),
)


def view_of_leaf_in_place():
    w = torch.zeros(3, requires_grad=True)
    w[0] = 1.0


def view_of_clone_in_place():
    w = torch.zeros(3, requires_grad=True)
    v = w.clone()
    v[0] = 1.0
    v.sum().backward()
    return w.grad


enter(
    "view-of-leaf-in-place",
    "PyTorch",
    ("a view of a leaf Variable that requires grad is being used in an in-place operation.",),
    "w[0] = 1 writes through a view of the leaf w, which changes the leaf itself (see leaf-in-place).",
    view_of_leaf_in_place,
    RuntimeError,
    view_of_clone_in_place,
    "Write into a clone(), or, if the write is initialisation and not part of the computation, inside of no_grad().",
    ("pytorch/pytorch#391", "Atcold/NYU-DLSP20#765"),
)


def one_of_several_views():
    x = torch.ones(2, requires_grad=True) * 1
    a, b = x.unbind(0)
    a.mul_(2)
    return b


def one_of_several_views_out_of_place():
    x = torch.ones(2, requires_grad=True) * 1
    a, b = x.unbind(0)
    a = a * 2
    return a + b


enter(
    "several-views",
    "PyTorch",
    (
        "Output <n> of <node> is a view and <is> being modified inplace. This view is the output of a function that "
        "returns multiple views. Such functions do not allow the output views to be modified inplace. You should "
        "replace the inplace operation by an out-of-place one.",
    ),
    "split, chunk and unbind return several views by one node, and a change of one would have to rewrite the history "
    "of them all.",
    one_of_several_views,
    RuntimeError,
    one_of_several_views_out_of_place,
    "Out of place, or take the one view by indexing (x[0]), which may be changed.",
    ("pytorch/pytorch#3313",),
)


def view_made_without_grad():
    x = torch.ones(2, requires_grad=True) * 1
    with torch.no_grad():
        v = x[0]
    v.mul_(2)


def view_made_with_grad():
    x = torch.ones(2, requires_grad=True) * 1
    v = x[0]
    v.mul_(2)
    return x


enter(
    "no-grad-view",
    "PyTorch",
    ("A view was created in no_grad mode and <is> being modified inplace with grad mode enabled.",),
    "The view was made where nothing is recorded, so its base does not know how to rewrite its history for a recorded "
    "change.",
    view_made_without_grad,
    RuntimeError,
    view_made_with_grad,
    "Make the view and the change both inside of no_grad(), or both outside.",
    ("pytorch/pytorch#3313",),
)


def wider_result_in_place():
    x = torch.zeros(3)
    x += torch.zeros(2, 3)


def wider_result():
    x = torch.zeros(3)
    return x + torch.zeros(2, 3)


enter(
    "in-place-shape",
    "PyTorch",
    ("output with shape <shape> doesn't match the broadcast shape <shape>",),
    "A change in place cannot change the shape, and the operands broadcast to a wider one.",
    wider_result_in_place,
    RuntimeError,
    wider_result,
    "Out of place, or expand() the Tensor first.",
    ("discuss.pytorch.org/t/120297",),
)


def other_dtype_in_place():
    count = torch.tensor([1, 2])
    count += 0.5


def other_dtype():
    count = torch.tensor([1, 2])
    return count + 0.5


enter(
    "in-place-dtype",
    "PyTorch",
    ("result type <Float> can't be cast to the desired output type <Long>",),
    "A change in place cannot change the dtype, and the result is of a kind that it cannot hold.",
    other_dtype_in_place,
    RuntimeError,
    other_dtype,
    "Out of place, or convert first: x = x.float().",
)

# --- PyTorch: roots, inputs, leaves -----------------------------------------------------------------------------------


def root_is_no_scalar():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (x * 2).backward()


def root_is_a_scalar():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (x * 2).sum().backward()
    return x.grad


enter(
    "no-scalar",
    "PyTorch",
    ("grad can be implicitly created only for scalar outputs",),
    "backward multiplies a vector with the Jacobian from the left. For one number that vector is 1; for several it "
    "must be said.",
    root_is_no_scalar,
    RuntimeError,
    root_is_a_scalar,
    "Reduce to one number by sum() or mean(), or hand over the vector: y.backward(torch.ones_like(y)).",
)


def root_without_history():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = (w * 2).sum().detach()
    loss.backward()


def root_with_history():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = (w * 2).sum()
    loss.backward()
    return w.grad


enter(
    "no-grad-fn",
    "PyTorch",
    ("element <n> of tensors does not require grad and does not have a grad_fn",),
    "Nothing that the loss was computed from requires a gradient: all weights are frozen, or it was computed under "
    "no_grad(), or the chain was cut by detach(), .data, .item(), numpy(), or a new Tensor made of the values.",
    root_without_history,
    RuntimeError,
    root_with_history,
    "Look at requires_grad of each intermediate result from the loss backwards: where it turns False the chain is cut.",
)


def cotangent_of_another_shape():
    x = torch.ones(3, requires_grad=True)
    (x * 2).backward(torch.ones(2))


def cotangent_of_the_same_shape():
    x = torch.ones(3, requires_grad=True)
    (x * 2).backward(torch.ones(3))
    return x.grad


enter(
    "cotangent-shape",
    "PyTorch",
    ("Mismatch in shape: grad_output[<n>] has a shape of <shape> and output[<n>] has a shape of <shape>.",),
    "The vector handed to backward or grad has one number for each number of the output.",
    cotangent_of_another_shape,
    RuntimeError,
    cotangent_of_the_same_shape,
    "torch.ones_like(output), or what the next derivative yields, unreduced.",
)


def unused_input():
    x = torch.tensor(1.0, requires_grad=True)
    z = torch.tensor(2.0, requires_grad=True)
    torch.autograd.grad(x * 2, [x, z])


def unused_input_allowed():
    x = torch.tensor(1.0, requires_grad=True)
    z = torch.tensor(2.0, requires_grad=True)
    return torch.autograd.grad(x * 2, [x, z], allow_unused=True)


enter(
    "unused-input",
    "PyTorch",
    (
        "One of the differentiated Tensors appears to not have been used in the graph. Set allow_unused=True if this "
        "is the desired behavior.",
        "The differentiated Tensor at index <n> appears to not have been used in the graph. Set allow_unused=True if "
        "this is the desired behavior.",
    ),
    "The output was not computed from that Tensor. Often it was computed from a copy: after x = x.to(...) or "
    "x.detach() the name is another Tensor, or the op ran under no_grad().",
    unused_input,
    RuntimeError,
    unused_input_allowed,
    "Differentiate with respect to the Tensor that was used; allow_unused=True gives None, materialize_grads=True "
    "zeros.",
)


def input_without_grad():
    x = torch.tensor(1.0)
    y = x * torch.tensor(2.0, requires_grad=True)
    torch.autograd.grad(y, x)


def input_with_grad():
    x = torch.tensor(1.0, requires_grad=True)
    y = x * torch.tensor(2.0, requires_grad=True)
    return torch.autograd.grad(y, x)


enter(
    "input-without-grad",
    "PyTorch",
    ("One of the differentiated Tensors does not require grad",),
    "A gradient is recorded only with respect to Tensors that required it when they were used.",
    input_without_grad,
    RuntimeError,
    input_with_grad,
    "x.requires_grad_() before the forward pass.",
)


def flag_of_a_result():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.requires_grad = False


def detached_result():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    return y.detach()


enter(
    "flag-of-a-result",
    "PyTorch",
    ("you can only change requires_grad flags of leaf variables.",),
    "Whether a result requires a gradient follows from its operands.",
    flag_of_a_result,
    RuntimeError,
    detached_result,
    "y.detach() is the same value outside of the graph.",
)


def numpy_of_a_tracked_tensor():
    x = torch.ones(2, requires_grad=True)
    (x * 2).numpy()


def numpy_of_a_detached_tensor():
    x = torch.ones(2, requires_grad=True)
    return (x * 2).detach().numpy()


enter(
    "numpy-of-tracked",
    "PyTorch",
    ("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.",),
    "What NumPy does with the array is not recorded, so gradients would be silently wrong.",
    numpy_of_a_tracked_tensor,
    RuntimeError,
    numpy_of_a_detached_tensor,
    "detach() first, if what follows is not to be differentiated; else stay with Tensors.",
)


def deepcopy_of_a_result():
    x = torch.ones(2, requires_grad=True)
    copy.deepcopy(x * 2)


def deepcopy_of_a_leaf():
    x = torch.ones(2, requires_grad=True)
    return copy.deepcopy((x * 2).detach())


enter(
    "deepcopy",
    "PyTorch",
    ("Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment.",),
    "A copy of a result would need a copy of the graph behind it. Often a module keeps a result as an attribute.",
    deepcopy_of_a_result,
    RuntimeError,
    deepcopy_of_a_leaf,
    "detach() what is kept, or clone(), which is recorded.",
)


def grad_of_a_result():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.sum().backward()
    return y.grad


def retained_grad_of_a_result():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.retain_grad()
    y.sum().backward()
    return y.grad


enter(
    "grad-of-a-result",
    "PyTorch",
    ("The .grad attribute of a Tensor that is not a leaf Tensor is being accessed.",),
    "Only leaves keep their gradient; that of a result is used and forgotten. A weight that was moved or converted "
    "after requires_grad was set (torch.randn(3, requires_grad=True).double()) is a result too.",
    grad_of_a_result,
    UserWarning,
    retained_grad_of_a_result,
    "retain_grad() before backward; or set requires_grad on the final Tensor.",
)


def integers_that_require_grad():
    torch.tensor([1, 2], requires_grad=True)


def floats_that_require_grad():
    return torch.tensor([1.0, 2.0], requires_grad=True)


enter(
    "integer-grad",
    "PyTorch",
    ("Only Tensors of floating point and complex dtype can require gradients",),
    "A derivative is a limit, which integers do not have.",
    integers_that_require_grad,
    RuntimeError,
    floats_that_require_grad,
    "Floats: 1.0 instead of 1, or x.float().",
)


def truth_of_several():
    x = torch.tensor([1.0, -1.0])
    if x > 0:
        return x


def truth_of_all():
    x = torch.tensor([1.0, -1.0])
    return x if (x > 0).all() else -x


enter(
    "ambiguous-truth",
    "PyTorch",
    ("Boolean value of Tensor with more than one value is ambiguous", "Boolean value of Tensor with no values"),
    "Python asks for one truth value and there are several.",
    truth_of_several,
    RuntimeError,
    truth_of_all,
    "all() or any(); element by element torch.where(condition, a, b).",
)


def flat_view_of_a_transpose():
    w = torch.ones(2, 3)
    w.t().view(-1)


def flat_copy_of_a_transpose():
    w = torch.ones(2, 3)
    return w.t().reshape(-1)


enter(
    "view-strides",
    "PyTorch",
    (
        "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
        "contiguous subspaces). Use .reshape(...) instead.",
    ),
    "view never copies, and the elements in the order asked for do not lie in the storage in one run.",
    flat_view_of_a_transpose,
    RuntimeError,
    flat_copy_of_a_transpose,
    "reshape(), which copies where it must, or contiguous().view().",
)


def create_graph_into_grad():
    x = torch.tensor(2.0, requires_grad=True)
    (x**3).backward(create_graph=True)


def create_graph_returned():
    x = torch.tensor(2.0, requires_grad=True)
    (slope,) = torch.autograd.grad(x**3, x, create_graph=True)
    slope.backward()
    return x.grad


enter(
    "create-graph-cycle",
    "PyTorch",
    ("Using backward() with create_graph=True will create a reference cycle between the parameter and its gradient",),
    "The gradient has a history, which leads to the leaf, which holds the gradient: x -> x.grad -> ... -> x. Reference "
    "counting never frees that; tape.leaks() finds it.",
    create_graph_into_grad,
    UserWarning,
    create_graph_returned,
    "autograd.grad(..., create_graph=True), which returns the gradient and stores it nowhere; or set .grad to None "
    "afterwards.",
    (
        "pytorch/pytorch#4661",
        "pytorch/pytorch#7343",
        "pytorch/pytorch#78622",
        "amirgholami/PyHessian#25",
        "f-dangel/cockpit#30",
    ),
)

# --- PyTorch: hooks, custom functions, anomaly mode -------------------------------------------------------------------


def hook_on_a_constant():
    x = torch.ones(2)
    x.register_hook(lambda grad: grad * 2)


def hook_on_a_leaf():
    x = torch.ones(2, requires_grad=True)
    x.register_hook(lambda grad: grad * 2)
    x.sum().backward()
    return x.grad


enter(
    "hook-without-grad",
    "PyTorch",
    ("cannot register a hook on a tensor that doesn't require gradient",),
    "A hook is called with the gradient, and none will ever arrive there.",
    hook_on_a_constant,
    RuntimeError,
    hook_on_a_leaf,
    "requires_grad_() first, or hook a Tensor that leads to one.",
)


def nan_on_the_way_back():
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):
        y = tnp.where(x > 0, (x * 0).sqrt() * x, x)
        y.sum().backward()


def no_nan_on_the_way_back():
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):
        y = tnp.where(x > 0, (x * 0 + 1).sqrt() * x, x)
        y.sum().backward()
    return x.grad


enter(
    "nan",
    "PyTorch",
    ("Function '<node>' returned nan values in its <n>th output.",),
    "The derivative is not a number though the value is: typically infinity times zero, as with sqrt at 0, or in the "
    "branch of torch.where that was not taken, whose derivative is computed and multiplied by 0.",
    nan_on_the_way_back,
    RuntimeError,
    no_nan_on_the_way_back,
    "Keep the argument away from the bad point before the op, not after it: (x.clamp(min=eps)).sqrt(), or a where "
    "around the argument too.",
)


def gradient_of_another_shape():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad.sum() * torch.ones(5)

    x = torch.ones(2, requires_grad=True)
    Doubled.apply(x).sum().backward()


def gradient_of_the_same_shape():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    x = torch.ones(2, requires_grad=True)
    Doubled.apply(x).sum().backward()
    return x.grad


enter(
    "invalid-gradient",
    "PyTorch",
    (
        "Function <node> returned an invalid gradient at index <n> - got <shape> but expected shape compatible with "
        "<shape>",
    ),
    "backward of a custom Function must return, for each operand of forward, a gradient of that operand's shape. What "
    "forward broadcast must be summed up again.",
    gradient_of_another_shape,
    RuntimeError,
    gradient_of_the_same_shape,
    "Return the gradients in the order of forward's operands, None for those without; check with "
    "torch.autograd.gradcheck.",
)


def inference_tensor_is_saved():
    with torch.inference_mode():
        x = torch.ones(2)
    w = torch.ones(2, requires_grad=True)
    return w * x


def cloned_inference_tensor_is_saved():
    with torch.inference_mode():
        x = torch.ones(2)
    w = torch.ones(2, requires_grad=True)
    return w * x.clone()


enter(
    "inference-tensor",
    "PyTorch",
    (
        "Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in "
        "computation tracked by autograd.",
        "Inference tensors cannot be saved for backward. To work around you can make a clone to get a normal tensor "
        "and use it in autograd.",
    ),
    "A Tensor made under inference_mode() has no version count, so whether it was changed since cannot be known.",
    inference_tensor_is_saved,
    RuntimeError,
    cloned_inference_tensor_is_saved,
    "clone() it outside, or make it under no_grad() instead.",
)

# --- TensorFlow 1 -----------------------------------------------------------------------------------------------------


def placeholder_without_value():
    with symbolic.Graph().as_default(), symbolic.Session() as session:
        x = symbolic.placeholder(np.float32, shape=(None, 784), name="x")
        session.run(tnp.sum(x))


def placeholder_with_value():
    with symbolic.Graph().as_default(), symbolic.Session() as session:
        x = symbolic.placeholder(np.float32, shape=(None, 784), name="x")
        return session.run(tnp.sum(x), {x: np.ones((1, 784))})


enter(
    "missing-feed",
    "TensorFlow 1",
    ("You must feed a value for placeholder tensor '<name>' with dtype <dtype>",),
    "What is fetched depends on a placeholder that was not fed. Often it is one that only training seems to need, like "
    "dropout's keep_prob, or one of a graph that was built twice.",
    placeholder_without_value,
    symbolic.MissingFeed,
    placeholder_with_value,
    "Feed it; fetch only what does not depend on it; or give it a default value.",
    (
        "tensorflow/tensorflow#10632",
        "tensorflow/tensorflow#17913",
        "tensorflow/serving#703",
        "carpedm20/DCGAN-tensorflow#257",
    ),
)


def feed_of_a_symbol():
    with symbolic.Graph().as_default(), symbolic.Session() as session:
        x = symbolic.placeholder(np.float32, name="x")
        session.run(x * 2, {x: symbolic.constant(1.0)})


def feed_of_a_number():
    with symbolic.Graph().as_default(), symbolic.Session() as session:
        x = symbolic.placeholder(np.float32, name="x")
        return session.run(x * 2, {x: 1.0})


enter(
    "feed-of-a-tensor",
    "TensorFlow 1",
    ("The value of a feed cannot be a tf.Tensor object.",),
    "A feed is a value; a symbol has none until the graph runs.",
    feed_of_a_symbol,
    TypeError,
    feed_of_a_number,
    "Feed an array or number: run the symbol first, or build the graph on it instead of on a placeholder.",
    ("tensorflow/tensorflow#10632",),
)


def element_of_another_graph():
    with symbolic.Graph().as_default():
        x = symbolic.constant(1.0)
    with symbolic.Graph().as_default(), symbolic.Session() as session:
        symbolic.constant(2.0)
        session.run(x)


def element_of_the_same_graph():
    with symbolic.Graph().as_default() as built:
        x = symbolic.constant(1.0)
    with symbolic.Session(graph=built) as session:
        return session.run(x)


enter(
    "not-an-element",
    "TensorFlow 1",
    ("Tensor <name> is not an element of this graph.",),
    "The session runs one graph and the tensor belongs to another: it was built before as_default() or after a reset, "
    "in another thread (each has its own default graph), or by a second model.",
    element_of_another_graph,
    ValueError,
    element_of_the_same_graph,
    "Build and run under one graph: with graph.as_default(), and Session(graph=graph).",
    ("tensorflow/tensorflow#22999", "tensorflow/tensorflow#3706", "autonomio/talos#330", "ageron/handson-ml#123"),
)


def session_of_another_graph():
    with symbolic.Graph().as_default():
        x = symbolic.constant(1.0)
    with symbolic.Graph().as_default():
        x.eval(session=symbolic.Session())


def session_of_the_same_graph():
    with symbolic.Graph().as_default():
        x = symbolic.constant(1.0)
        return x.eval(session=symbolic.Session())


enter(
    "session-of-another-graph",
    "TensorFlow 1",
    (
        "Cannot use the given session to evaluate tensor: the tensor's graph is different from the session's graph.",
        "Cannot use the default session to evaluate tensor: the tensor's graph is different from the session's graph.",
    ),
    "As not-an-element, found by eval().",
    session_of_another_graph,
    ValueError,
    session_of_the_same_graph,
    "Session(graph=x.graph).",
    ("tensorflow/tensorflow#22999", "tensorflow/tensorflow#3317"),
)


def operands_of_two_graphs():
    with symbolic.Graph().as_default():
        x = symbolic.constant(1.0)
    with symbolic.Graph().as_default():
        return symbolic.constant(2.0) + x


def operands_of_one_graph():
    with symbolic.Graph().as_default():
        x = symbolic.constant(1.0)
        return (symbolic.constant(2.0) + x).shape


enter(
    "two-graphs",
    "TensorFlow 1",
    ("must be from the same graph as",),
    "The operands of an operation were built in two graphs.",
    operands_of_two_graphs,
    ValueError,
    operands_of_one_graph,
    "One `with graph.as_default():` around everything that belongs together.",
    ("tensorflow/tensorflow#22999", "tensorflow/tensorflow#3706"),
)


def growing_finalized_graph():
    with symbolic.Graph().as_default() as built, symbolic.Session() as session:
        x = symbolic.constant(1.0)
        built.finalize()
        for _ in range(3):
            session.run(x * 2)


def graph_built_before_the_loop():
    with symbolic.Graph().as_default() as built, symbolic.Session() as session:
        x = symbolic.constant(1.0)
        doubled = x * 2
        built.finalize()
        return [session.run(doubled) for _ in range(3)]


enter(
    "finalized",
    "TensorFlow 1",
    ("Graph is finalized and cannot be modified.",),
    "An operation is added to a graph that was closed against growth. A graph that grows in the training loop makes "
    "every step slower; finalize() is how to find out.",
    growing_finalized_graph,
    RuntimeError,
    graph_built_before_the_loop,
    "Build all operations, also initialisers, gradients and assignments, before the loop.",
    (
        "tensorflow/tensorflow#26171",
        "tensorflow/tensorflow#1439",
        "tensorflow/tensorflow#7127",
        "DeepRNN/image_captioning#40",
    ),
)


def branch_on_a_symbol():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, name="x")
        return x if x > 0 else -x


def cond_on_a_symbol():
    with symbolic.Graph().as_default(), symbolic.Session() as session:
        x = symbolic.placeholder(np.float32, name="x")
        return session.run(symbolic.cond(x > 0, lambda: x, lambda: -x), {x: -3.0})


enter(
    "bool-of-a-symbol",
    "TensorFlow 1",
    (
        "Using a `tf.Tensor` as a Python `bool` is not allowed.",
        "using a tf.Tensor as a Python bool is not allowed in Graph execution",
    ),
    "Python's if chooses while the graph is built, when the value is not known yet.",
    branch_on_a_symbol,
    TypeError,
    cond_on_a_symbol,
    "cond() for one of two subgraphs, where() element by element, `is not None` to ask whether there is one at all.",
)


def uninitialized_variable():
    with symbolic.Graph().as_default(), symbolic.Session() as session:
        v = symbolic.variable(np.zeros(3), name="v")
        session.run(v + 1)


def initialized_variable():
    with symbolic.Graph().as_default(), symbolic.Session() as session:
        v = symbolic.variable(np.zeros(3), name="v")
        session.run(symbolic.global_variables_initializer())
        return session.run(v + 1)


enter(
    "uninitialized",
    "TensorFlow 1",
    ("Attempting to use uninitialized value <name>",),
    "A variable's initial value is an operation that has to be run in each session; variables built after the "
    "initialiser was run (an optimizer's) are not covered by it.",
    uninitialized_variable,
    RuntimeError,
    initialized_variable,
    "Run global_variables_initializer() once the whole graph is built.",
)


def no_gradient_defined():
    def outside(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), np.float32), x)

    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, name="x")
        symbolic.gradients(symbolic.apply(outside, x, name="there"), x)


def gradient_defined():
    with symbolic.Graph().as_default(), symbolic.Session() as session:
        x = symbolic.placeholder(np.float32, name="x")
        return session.run(symbolic.gradients(tnp.sin(x), x), {x: 0.0})


enter(
    "no-gradient-defined",
    "TensorFlow 1",
    ("No gradient defined for operation '<name>' (op type: <type>)",),
    "There is no derivative rule for this operation. In TensorFlow that was often the derivative of an operation: the "
    "graph was symbolic, and still there was no second derivative. An order n derivative exists where rules are made "
    "of operations that have rules.",
    no_gradient_defined,
    LookupError,
    gradient_defined,
    "Use an operation that has a rule, give it one (jax.custom_vjp), or leave it out with stop_gradient.",
    ("tensorflow/tensorflow#11435", "tensorflow/tensorflow#5985", "tensorflow/tensorflow#22825"),
)


def tape_used_twice():
    x = torch.tensor(3.0, requires_grad=True)
    y = x.exp()
    z = y * y
    torch.autograd.grad(z, x)
    torch.autograd.grad(y, x)


def tape_kept():
    x = torch.tensor(3.0, requires_grad=True)
    y = x.exp()
    z = y * y
    torch.autograd.grad(z, x, retain_graph=True)
    return torch.autograd.grad(y, x)


enter(
    "tape-used-twice",
    "TensorFlow 2",
    (
        "A non-persistent GradientTape can only be used to compute one set of gradients (or jacobians)",
        "GradientTape.gradient can only be called once on non-persistent tapes.",
    ),
    "The tape frees what it recorded with the first gradient.",
    tape_used_twice,
    RuntimeError,
    tape_kept,
    "GradientTape(persistent=True), deleted afterwards, for it keeps everything; or one gradient() call with a list of "
    "sources. Here: retain_graph=True.",
    ("tensorflow/tensorflow#46487", "tensorflow/tensorflow#41510", "sql-machine-learning/elasticdl#1144"),
    here="Trying to backward through the graph a second time",
    likeness="the tape of PyTorch's kind frees saved values, not the graph",
)


def constant_was_watched_too_late():
    x = torch.tensor(3.0)
    y = x * x
    x.requires_grad_()
    torch.autograd.grad(y, x)


def constant_was_watched():
    x = torch.tensor(3.0).requires_grad_()
    y = x * x
    return torch.autograd.grad(y, x)


enter(
    "gradients-are-none",
    "TensorFlow 2",
    (
        "No gradients provided for any variable",
        "Gradients do not exist for variables <names> when minimizing the loss.",
        "None values not supported.",
    ),
    "The gradient with respect to something that the tape did not watch, or that the result does not depend on, is "
    "None there, and the error comes where it is used: when the optimizer gets it.",
    constant_was_watched_too_late,
    RuntimeError,
    constant_was_watched,
    "tape.watch(x) before x is used, variables instead of constants, all of the computation inside of the tape's "
    "block.",
    ("tensorflow/tensorflow#56968", "tensorflow/tensorflow#54417", "tensorflow/tensorflow#31519"),
    here="does not require grad and does not have a grad_fn",
    likeness="here the mistake is an error at once, and no None",
)

# --- Theano -----------------------------------------------------------------------------------------------------------


def cost_is_no_scalar():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, (None,), name="x")
        symbolic.grad(x**2, x)


def cost_is_a_scalar():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, (None,), name="x")
        return symbolic.function([x], symbolic.grad((x**2).sum(), x))([1.0, 2.0])


enter(
    "cost-must-be-scalar",
    "Theano",
    ("cost must be a scalar.",),
    "The gradient of several numbers is a Jacobian.",
    cost_is_no_scalar,
    TypeError,
    cost_is_a_scalar,
    "Sum or mean of the cost; jacobian() for all of it; known_grads= for a vector to begin with.",
)


def disconnected_input():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, name="x")
        y = symbolic.placeholder(np.float32, name="y")
        symbolic.grad(x**2, y)


def disconnected_input_ignored():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, name="x")
        y = symbolic.placeholder(np.float32, name="y")
        return symbolic.function(
            [x, y], symbolic.grad(x**2, y, disconnected_inputs="ignore"), on_unused_input="ignore"
        )(1.0, 2.0)


enter(
    "disconnected-input",
    "Theano",
    (
        "grad method was asked to compute the gradient with respect to a variable that is not part of the "
        "computational graph of the cost, or is used only by a non-differentiable operator: <variable>",
    ),
    "The cost does not depend on the variable, or only through operators without a derivative, like argmax. Often a "
    "layer's weights are listed that the cost never reaches.",
    disconnected_input,
    DisconnectedInput,
    disconnected_input_ignored,
    "Take it out of wrt, or disconnected_inputs='ignore', which yields zeros: a disconnected gradient is not the same "
    "as one that happens to be zero.",
    ("keras-team/keras#599", "keras-team/keras#572", "keras-team/keras#1384", "Theano/Theano#894"),
)


def missing_input():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, name="x")
        y = symbolic.placeholder(np.float32, name="y")
        symbolic.function([x], x + y)


def no_missing_input():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, name="x")
        y = symbolic.placeholder(np.float32, name="y")
        return symbolic.function([x, y], x + y)(1.0, 2.0)


enter(
    "missing-input",
    "Theano",
    (
        "Input <n> of the graph (indices start from 0), used to compute <node>, was not provided and not given a "
        "value.",
        "An input of the graph, used to compute <node>, was not provided and not given a value",
    ),
    "The outputs depend on a variable that is neither an input of the function nor shared.",
    missing_input,
    symbolic.MissingInput,
    no_missing_input,
    "Add it to the inputs, or replace it: givens=[(y, value)].",
)


def unused_function_input():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, name="x")
        y = symbolic.placeholder(np.float32, name="y")
        symbolic.function([x, y], x * 2)


def unused_function_input_ignored():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, name="x")
        y = symbolic.placeholder(np.float32, name="y")
        return symbolic.function([x, y], x * 2, on_unused_input="ignore")(1.0, 2.0)


enter(
    "unused-function-input",
    "Theano",
    (
        "theano.function was asked to create a function computing outputs given certain inputs, but the provided input "
        "variable at index <n> is not part of the computational graph needed to compute the outputs: <variable>",
    ),
    "A function has an input that no output depends on; most often the graph was built from another variable of the "
    "same name.",
    unused_function_input,
    symbolic.UnusedInput,
    unused_function_input_ignored,
    "Take it out, or on_unused_input='ignore' where it is meant.",
)


def boolean_of_a_variable():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, name="x")
        while x < 3:
            x = x + 1
        return x


def while_loop_of_a_variable():
    with symbolic.Graph().as_default():
        x = symbolic.placeholder(np.float32, name="x")
        return symbolic.function([x], symbolic.while_loop(lambda v: v < 3, lambda v: (v + 1,), (x,)))(0.0)


enter(
    "bool-of-a-variable",
    "Theano",
    ("Variables do not support boolean operations.",),
    "Python's if and while choose when the graph is built, and a variable has no value then.",
    boolean_of_a_variable,
    TypeError,
    while_loop_of_a_variable,
    "switch (both sides computed) is where() here, ifelse (one side) is cond(), a loop is scan() or while_loop().",
)

# --- Caffe ------------------------------------------------------------------------------------------------------------

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } }'
ABOVE = 'layer { name: "above" type: "TanH" bottom: "%s" top: "%s" }'
SECOND = 'layer { name: "second" type: "AbsVal" bottom: "%s" top: "%s" }'


def unknown_blob():
    caffe.Net(DATA + ABOVE % ("dada", "above"))


def known_blob():
    return caffe.Net(DATA + ABOVE % ("data", "above")).forward(data=[[1, 2, 3]])["above"]


enter(
    "unknown-bottom",
    "Caffe",
    ("Unknown bottom blob '<blob>' (layer '<layer>', bottom index <n>)",),
    "A layer reads a blob that no layer above it makes: a misspelt name, a layer that the phase leaves out, or one "
    "that stands below. A net is a list and is not sorted.",
    unknown_blob,
    ValueError,
    known_blob,
    "Correct the name, or move the layer that makes the blob above.",
)


def blob_from_two_layers():
    caffe.Net(DATA + ABOVE % ("data", "above") + SECOND % ("data", "above"))


def blob_from_one_layer():
    net = caffe.Net(DATA + ABOVE % ("data", "above") + SECOND % ("data", "second"))
    return net.forward(data=[[1, 2, 3]])["second"]


enter(
    "produced-twice",
    "Caffe",
    ("Top blob '<blob>' produced by multiple sources.",),
    "Two layers name the same top, and the second does not name it as its bottom: that would not be in place but a "
    "second source. It happens, too, to a layer in place whose bottom another layer reads as well: a Split is put in "
    "between, and the bottom has another name then.",
    blob_from_two_layers,
    ValueError,
    blob_from_one_layer,
    "Give each layer's top its own name.",
)


def in_place_layer():
    caffe.Net(DATA + SECOND % ("data", "data"))


def out_of_place_layer():
    return caffe.Net(DATA + SECOND % ("data", "second")).forward(data=[[-1, 2, 3]])["second"]


enter(
    "no-in-place-layer",
    "Caffe",
    ("<type> Layer does not allow in-place computation.",),
    "The layer reads its bottom after it has written its top. Caffe checks that for some layers; it does not check "
    "whether the layer below reads its own top on the way back, and then the gradient is wrong without an error (see "
    "`twograd museum caffe-in-place`).",
    in_place_layer,
    ValueError,
    out_of_place_layer,
    "Another name for the top.",
    ("BVLC/caffe#2015", "BVLC/caffe#2853", "BVLC/caffe#4388", "NVIDIA/caffe#230"),
)

# --- Torch7 -----------------------------------------------------------------------------------------------------------


def share_weights_alone():
    first = torch7.Linear(2, 2)
    torch7.Sequential().add(first).add(first.clone("weight", "bias")).getParameters()


def share_weights_and_gradients():
    first = torch7.Linear(2, 2)
    net = torch7.Sequential().add(first).add(first.clone("weight", "bias", "gradWeight", "gradBias"))
    return len(net.getParameters()[0])


enter(
    "misaligned",
    "Torch7",
    ("check that you are sharing parameters and gradParameters", "misaligned parameter at <i>"),
    "getParameters() makes all weights views of one flat vector, by moving their storages, and all gradients views of "
    "another. Each weight must stand in the one where its gradient stands in the other, so modules that share weights "
    "have to share their gradients, too. A second call moves them again, and what the first returned is not theirs "
    "any more.",
    share_weights_alone,
    AssertionError,
    share_weights_and_gradients,
    "Share both, and call it once, after sharing and after moving to the device.",
    ("torch/nn#422",),
)

# --- JAX --------------------------------------------------------------------------------------------------------------


def branch_on_a_tracer():
    graph.grad(lambda x: x if x > 0 else -x)(2.0)


def select_on_a_tracer():
    return graph.grad(lambda x: jnp.where(x > 0, x, -x))(2.0)


enter(
    "tracer-bool",
    "JAX",
    (
        "Attempted boolean conversion of traced array with shape <shape>.",
        "The problem arose with the `bool` function.",
        "TracerBoolConversionError",
    ),
    "The function is traced with values that have a shape and a dtype and no number, and Python's if, while, and, or, "
    "assert ask for the number. `x or default` asks too.",
    branch_on_a_tracer,
    jax.errors.TracerBoolConversionError,
    select_on_a_tracer,
    "jnp.where for elements, lax.cond for branches; an argument that is structure, not data, is made static.",
    ("jax-ml/jax#16430", "jax-ml/jax#24511"),
)


def array_of_a_tracer():
    graph.grad(lambda x: jnp.sum(jnp.asarray(np.sin(x))))(2.0)


def sine_of_a_tracer():
    return graph.grad(lambda x: jnp.sum(jnp.sin(x)))(2.0)


enter(
    "tracer-array",
    "JAX",
    ("The numpy.ndarray conversion method __array__() was called on traced array", "TracerArrayConversionError"),
    "NumPy (or another library) is asked to compute with a traced value; it needs numbers.",
    array_of_a_tracer,
    jax.errors.TracerArrayConversionError,
    sine_of_a_tracer,
    "jax.numpy instead of numpy; jax.pure_callback for what exists only outside.",
    ("jax-ml/jax#16430",),
)


def shape_of_a_tracer():
    graph.grad(lambda n: jnp.sum(jnp.ones(n.astype(int))) * n)(2.0)


def shape_of_a_number():
    return graph.grad(lambda n: jnp.sum(jnp.where(jnp.arange(3) < n, 1.0, 0.0)) * n)(2.0)


enter(
    "concretization",
    "JAX",
    (
        "Abstract tracer value encountered where concrete value is expected",
        "Array slice indices must have static start/stop/step to be used with NumPy indexing syntax.",
        "Shapes must be 1D sequences of concrete values of integer type",
        "Slice entries must be static integers.",
        "ConcretizationTypeError",
    ),
    "Something that decides a shape (a size, a slice, an axis, the number of steps) depends on a traced value.",
    shape_of_a_tracer,
    TypeError,
    shape_of_a_number,
    "Make it a Python number (a static argument), or keep the shape and mask with where; lax.dynamic_slice for a fixed "
    "size at a varying place.",
)


def boolean_index_of_a_tracer():
    graph.grad(lambda x: jnp.sum(x[x > 0]))(jnp.array([1.0, -1.0]))


def boolean_weight_of_a_tracer():
    return graph.grad(lambda x: jnp.sum(jnp.where(x > 0, x, 0.0)))(jnp.array([1.0, -1.0]))


enter(
    "boolean-index",
    "JAX",
    ("Array boolean indices must be concrete", "NonConcreteBooleanIndexError"),
    "How many elements a mask picks is not known while tracing, and a shape must be.",
    boolean_index_of_a_tracer,
    jax.errors.NonConcreteBooleanIndexError,
    boolean_weight_of_a_tracer,
    "jnp.where(mask, x, 0), or jnp.nonzero(mask, size=n).",
)


def gradient_of_a_vector():
    graph.grad(lambda x: x * 2)(jnp.ones(3))


def gradient_of_a_sum():
    return graph.grad(lambda x: jnp.sum(x * 2))(jnp.ones(3))


enter(
    "scalar-output",
    "JAX",
    (
        "Gradient only defined for scalar-output functions. Output had shape: <shape>",
        "Gradient only defined for scalar-output functions",
    ),
    "grad is of one number; of several there is a Jacobian.",
    gradient_of_a_vector,
    TypeError,
    gradient_of_a_sum,
    "Sum or mean; jacobian, or vjp with a cotangent.",
    here="grad is defined for functions that return a scalar",
    likeness="the same error in other words",
)


def gradient_of_an_integer():
    graph.grad(lambda x: x * 2.0)(3)


def gradient_of_a_float():
    return graph.grad(lambda x: x * 2.0)(3.0)


enter(
    "integer-input",
    "JAX",
    ("grad requires real- or complex-valued inputs (input dtype that is a sub-dtype of np.inexact), but got <dtype>",),
    "Integers have no derivative, and 3 is one.",
    gradient_of_an_integer,
    TypeError,
    gradient_of_a_float,
    "3.0, or x.astype(float).",
    here="grad needs real or complex inputs",
    likeness="the same error in other words",
)


def leaked_tracer():
    kept = []
    graph.grad(lambda x: kept.append(x * 2) or x)(3.0)
    return kept[0] + 1


def returned_value():
    slope, kept = graph.grad(lambda x: (x, x * 2), has_aux=True)(3.0)
    return slope, kept + 1


enter(
    "leaked-tracer",
    "JAX",
    ("Encountered an unexpected tracer.", "UnexpectedTracerError"),
    "A traced value was kept (in a list, an attribute, a global) and used after the trace had ended.",
    leaked_tracer,
    jax.errors.UnexpectedTracerError,
    returned_value,
    "Return it: has_aux=True hands a second result on.",
)


def assignment_to_an_array():
    x = jnp.ones(3)
    x[0] = 2.0


def update_of_an_array():
    x = jnp.ones(3)
    return x.at[0].set(2.0)


enter(
    "immutable",
    "JAX",
    ("JAX arrays are immutable and do not support in-place item assignment.",),
    "Nothing in a traced program changes in place, which is also why JAX needs no version counts.",
    assignment_to_an_array,
    TypeError,
    update_of_an_array,
    "x = x.at[0].set(2.0); a Tensor of the tape takes x[0] = 2.0.",
)


def derivative_of_a_while_loop():
    graph.grad(lambda x: jax.lax.while_loop(lambda v: v < 10, lambda v: v * v, x))(2.0)


def derivative_of_a_bounded_loop():
    return graph.grad(lambda x: graph.bounded_while_loop(lambda v: v < 10, lambda v: v * v, x, 5))(2.0)


enter(
    "reverse-while",
    "JAX",
    ("Reverse-mode differentiation does not work for lax.while_loop or lax.fori_loop with dynamic start/stop values.",),
    "The walk back needs what each step kept, and nobody knows how many steps there will be.",
    derivative_of_a_while_loop,
    ValueError,
    derivative_of_a_bounded_loop,
    "scan, fori_loop with static bounds, graph.bounded_while_loop(max_steps), or forward mode.",
)
