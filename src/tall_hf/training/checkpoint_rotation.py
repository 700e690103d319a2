"""Deletion of a Trainer's superfluous checkpoints in the order of their steps."""

from transformers.trainer_utils import rotate_checkpoints


class StepwiseRotation:
    """For a Trainer to inherit in front of `Trainer`: the checkpoints of the lowest steps are deleted first.

    The Trainer deletes by the folders' dates: after a jump of the clock, the checkpoint that it has just written.
    """

    def _save_checkpoint(self, model, trial):
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate_checkpoints(self._get_output_dir(trial), limit, self.state.best_model_checkpoint, use_mtime=False)
