"""Which laws do not apply to a method of this package, and which identities are its own: a change must not go unnoticed."""

NOT_APPLICABLE = {  # a law that stops applying must not go unnoticed
    "fedavg": {"personal_models_are_trained", "defaults_do_something"},
    "fedavg_ft": {"defaults_do_something"},
    "fedprox": {"personal_models_are_trained"},
    "fedrep": {"the_generic_model_moves"},
    "local_only": {"the_generic_model_moves", "the_aggregate_is_used", "defaults_do_something"},
    "pfedme": {"defaults_do_something"},
    "spectral_released": {"the_aggregate_is_used"},
}


OF_THEIR_OWN = {
    "ditto": {"generic_stream_is_fedavg", "ditto_without_pull_is_local_training", "pull_is_the_papers"},
    "fedavg_ft": {"generic_stream_is_fedavg", "fine_tuning_is_training"},
    "fedprox": {"fedprox_without_pull_is_fedavg", "pull_is_the_papers"},
    "fedrep": {"fedrep_that_shares_all_is_fedavg"},
    "pfedme": {"theta_is_stored"},
    "spectral": {"spectral_without_pull_is_fedavg_and_local_training"},
    "spectral_released": {"released_without_pull_is_local_training"},
}
