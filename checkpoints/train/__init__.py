"""Trainers of the shipped checkpoints: speech synthesis, data and the training scripts themselves."""
