"""Sparse training in anyone's training script: callbacks of the Hugging Face Trainer, and a context for any loop.

A callback says ``on_step_end``, never how a step is made: no session, no recipe, no subclass of anybody's Trainer.
"""
