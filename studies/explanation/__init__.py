"""Why a test result is not what the validation images promised."""
