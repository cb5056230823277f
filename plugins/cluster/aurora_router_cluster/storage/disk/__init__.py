"""What a storage node keeps on disk: its checksummed log of frames, small durable records, a cluster's identity."""
