"""Prediction of label maps with a trained run or a backbone."""
