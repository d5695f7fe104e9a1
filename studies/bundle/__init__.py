"""The bundle of one model: made, described, read, used, trained again."""
