#pragma once

#include <string>

#include "apps/batch/jobs.h"

/// Names of what jobs make: a template with fields, safe on every file system, below the output
/// folder whatever the fields hold.
namespace fovea::apps::batch {

/// Fields: {id}, {index}, {type}, any option of the job; {index:05} with zeros to 5 digits,
/// {prompt:40} at most 40 characters. Letters, digits, '.', '_' and '-' stay, a run of anything
/// else becomes one '-'; '/' in the template itself makes folders. The type's extension is added
/// where the name has none that it could be. Throws Error for a name that cannot be.
std::string name_of(const Job& job, const std::string& name_template);

/// Sets the file of every job, from its option `output` or the template. taken: names (as id →
/// file) of earlier runs, which stay. Jobs without a name of their own go to list.bad.
void name_jobs(JobList& list, const std::string& name_template,
               const std::map<std::string, std::string>& taken);

}  // namespace fovea::apps::batch
