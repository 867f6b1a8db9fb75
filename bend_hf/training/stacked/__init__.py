"""Train several heads of one shape together, from one read of the data.

The heads differ in what they read (the layers of a model), in the rows they learn from (few shots), in their seed, or
in their rates. Each takes the batches, the steps and the first weights that it takes when it is trained alone, so its
scores are the same up to the rounding of float32. Their weights have an axis K in front; heads that declare
``HeadSpec.batched`` are computed by one call, others one after the other.

    members = [StackedMember(name=f"layer {layer}", head=heads[layer], train=splits[layer], config=config) ...]
    stacked = StackedHeads([one.head for one in members], batched=HEADS.get("cnn").batched)
    fitted = fit_stacked(stacked, members, StackedData(loss=loss, validate=validate), accelerator)
    stacked.load([one.state for one in fitted])
    predictions = predict_stacked(stacked, test_splits, accelerator, batch_size=64)
"""

from bend_hf.training.stacked.heads import StackedHeads as StackedHeads
from bend_hf.training.stacked.predict import predict_stacked as predict_stacked
from bend_hf.training.stacked.trainer import StackedCallbacks as StackedCallbacks
from bend_hf.training.stacked.trainer import StackedData as StackedData
from bend_hf.training.stacked.trainer import StackedMember as StackedMember
from bend_hf.training.stacked.trainer import fit_stacked as fit_stacked
