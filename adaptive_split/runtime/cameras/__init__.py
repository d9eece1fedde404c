"""Pictures from cameras and video files: the newest one, whenever a frame asks."""
